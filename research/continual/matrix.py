"""The matrix of scores of a sequence of tasks, and the figures that follow from it.

R[i, j] is the test score on the j-th task after the i-th was learned, b[j] that of an untrained head on the pretrained
encoder; T tasks, in the order they are learned.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def accuracy(R: Floats) -> float:
    """ACC: the mean score on all tasks after the last one (Lopez-Paz & Ranzato 2017)."""
    return float(R[-1].mean())


def backward_transfer(R: Floats) -> float:
    """BWT: what later tasks changed of the score on each but the last (Lopez-Paz & Ranzato 2017)."""
    return float((R[-1, :-1] - np.diag(R)[:-1]).mean()) if len(R) > 1 else 0.0


def forward_transfer(R: Floats, b: Floats) -> float:
    """FWT: what earlier tasks changed of the score on each but the first before it was learned (ibid.)."""
    return float((np.diag(R, 1) - b[1:]).mean()) if len(R) > 1 else 0.0


def forgetting(R: Floats) -> float:
    """How far the score on each task but the last is below its best before the last task (Chaudhry et al. 2018)."""
    return float((R[:-1, :-1].max(axis=0) - R[-1, :-1]).mean()) if len(R) > 1 else 0.0


def figures_of(R: Floats, b: Floats) -> dict[str, float]:
    return {"ACC": accuracy(R), "BWT": backward_transfer(R), "FWT": forward_transfer(R, b), "forgetting": forgetting(R)}
