"""Random numbers by counting: each belongs to its key, whatever else is drawn, in whatever order and by whom."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN, _FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def uniform(*key: Any) -> NDArray[np.float64]:
    """Numbers in [0, 1), one for each key: integers and arrays of integers of one shape, broadcast.

    The finaliser of SplitMix64 (Steele et al. 2014, Fast splittable pseudorandom number generators) over the parts of
    the key, one after the other.
    """
    state = np.zeros(np.broadcast_shapes(*(np.shape(part) for part in key)) or (1,), np.uint64)
    for part in key:
        state = _mixed(state + np.asarray(part).astype(np.int64).astype(np.uint64) * _GOLDEN + _GOLDEN)
    return np.asarray((state >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return np.asarray(x ^ (x >> np.uint64(31)))
