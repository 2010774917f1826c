"""A seeded order of examples of which every beginning, and every stretch, has the classes' shares of the whole.

A sample of N is the first N of it: seeded, stratified, and part of each larger sample.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def stratified_order(count: int, labels: Sequence[Hashable] | None, seed: int) -> Indices:
    """All indices below `count`: each class shuffled and spread evenly over the order; without labels shuffled."""
    rng = np.random.default_rng([seed, 0x5A3D])
    members: dict[Hashable, list[int]] = {}
    for i, label in enumerate(labels if labels is not None else [None] * count):
        members.setdefault(label, []).append(i)
    place = np.empty(count)
    for label in sorted(members, key=str):
        mine = rng.permutation(np.array(members[label]))
        place[mine] = (np.arange(len(mine)) + rng.random()) / len(mine)
    return np.argsort(place, kind="stable")


def sampled(count: int, labels: Sequence[Hashable] | None, size: int, seed: int) -> Indices:
    """The indices of a sample of `size`, ascending."""
    return np.sort(stratified_order(count, labels, seed)[:size])
