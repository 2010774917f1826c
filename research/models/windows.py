"""Join what a model says of the windows of one text.

Shapes: N windows, E texts, C outputs.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def mean_over_windows(outputs: Tensor, *belongs_to: NDArray[np.int64]) -> Tensor:
    """Outputs (N, C) of windows -> their mean over each text (E, C), in order.

    Neighbouring windows are of one text where they agree in all of `belongs_to`, each (N,).
    """
    counts = runs(*belongs_to)
    if len(counts) == len(outputs):  # the same tensor, to the bit
        return outputs
    return torch.stack([part.mean(0) for part in outputs.split(counts)])


def firsts(*keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """The index of the first of each stretch in which none of the keys changes."""
    lengths = np.array(runs(*keys))
    first: NDArray[np.int64] = np.cumsum(lengths) - lengths
    return first


def runs(*keys: NDArray[np.int64]) -> list[int]:
    """The lengths of the stretches in which none of the keys changes."""
    changes = np.any([np.diff(key) != 0 for key in keys], axis=0)
    borders = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(keys[0])]])
    lengths: list[int] = np.diff(borders).tolist()
    return lengths
