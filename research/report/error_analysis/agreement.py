"""How far two systems make the same mistakes.

Each system has one or more runs over the same examples. What is counted is what a pair of runs, one of each system
drawn at random, does with an example; so the figures do not depend on which seeds happen to have equal numbers.

Legend: N examples, R runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from research.metrics.examples import Examples, Floats


@dataclass(frozen=True)
class Agreement:
    """Shares of the examples; they add up to 1 but for `same_prediction` and `kappa`."""

    both_right: float
    only_first: float  # right
    only_second: float
    both_wrong: float
    same_prediction: float
    kappa: float | None  # Cohen's kappa of the predicted labels, mean over pairs of runs; None for other tasks
    advantage: Floats  # (N,) share of runs right, second minus first


def agreement(first: Sequence[Examples], second: Sequence[Examples]) -> Agreement:
    """Compare the runs of two systems; all hold the same examples in the same order."""
    a, b = (np.mean([run.right for run in runs], axis=0) for runs in (first, second))  # (N,)
    pairs = [(np.array(x.prediction), np.array(y.prediction)) for x in first for y in second]
    labels = first[0].has_labels
    return Agreement(
        both_right=float((a * b).mean()),
        only_first=float((a * (1 - b)).mean()),
        only_second=float(((1 - a) * b).mean()),
        both_wrong=float(((1 - a) * (1 - b)).mean()),
        same_prediction=float(np.mean([(x == y).mean() for x, y in pairs])),
        kappa=float(np.mean([cohen_kappa(x, y) for x, y in pairs])) if labels else None,
        advantage=b - a,
    )


def cohen_kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Agreement beyond chance (Cohen 1960) of two sequences of labels (N,); 1 where both are one and the same label."""
    labels = np.unique(np.concatenate([first, second]))
    chance = sum((first == label).mean() * (second == label).mean() for label in labels)
    observed = (first == second).mean()
    return 1.0 if chance == 1 else float((observed - chance) / (1 - chance))
