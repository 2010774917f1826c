"""A step plan over several tasks: how many examples of each task an epoch has, and which are in each step.

An epoch has as many places as all tasks together have examples. Task k of n_k examples gets a share of them that is
proportional to n_k ** alpha: alpha 1 samples by size, 0.5 by its root, 0 all tasks alike; 1 / alpha is the temperature
of multilingual models (Conneau et al. 2020: alpha 0.3). With `alpha_end` it changes linearly from the first epoch to
the last (Stickland & Murray 2019, annealed sampling: 1 to 0.2). The places are shuffled by (seed, epoch); each task
continues through its own examples, shuffled again by (seed, own epoch, task) whenever it has seen them all.

All of it is a pure function of (seed, step). With alpha 1 an epoch sees every example once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from research.batching.plan import Indices, random_bits

ORDER_OF_TASK = 0x7A5C  # a stream of random bits of its own


@dataclass(frozen=True)
class MixedPlan:
    """`batch_size` examples in each optimiser step, over all tasks and devices."""

    rows: Sequence[Indices]  # of each task, the examples that it trains on
    batch_size: int
    seed: int
    alpha: float = 1.0
    alpha_end: float | None = None  # in the last epoch; None: alpha
    epochs: int = 1  # over which alpha changes
    _orders: dict[int, Indices] = field(default_factory=dict, repr=False, compare=False)

    @property
    def examples(self) -> int:
        """Places of an epoch."""
        return sum(map(len, self.rows))

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.examples // self.batch_size)

    def global_batch(self, step: int) -> Indices:
        """The examples of optimiser step `step`, counted from 0; a step is a set: none is in it twice."""
        epoch, position = divmod(step, self.steps_per_epoch)
        drawn = self._order(epoch)[position * self.batch_size : (position + 1) * self.batch_size]
        _, first = np.unique(drawn, return_index=True)
        batch: Indices = drawn[np.sort(first)]
        return batch

    def counts(self, epoch: int) -> Indices:
        """How many places of an epoch each task has: its share, rounded by the largest remainders."""
        sizes = np.array([len(rows) for rows in self.rows], np.float64)
        end = self.alpha if self.alpha_end is None else self.alpha_end
        alpha = self.alpha + (end - self.alpha) * min(1.0, epoch / max(1, self.epochs - 1))
        weights = np.where(sizes > 0, np.maximum(sizes, 1) ** alpha, 0.0)
        shares = weights / weights.sum() * self.examples
        counts: Indices = np.floor(shares + 1e-9).astype(np.int64)
        missing = self.examples - int(counts.sum())
        counts[np.argsort(counts - shares, kind="stable")[:missing]] += 1
        return counts

    def _order(self, epoch: int) -> Indices:
        """The examples of an epoch's places, in order."""
        if epoch not in self._orders:
            counts = self.counts(epoch)
            before = sum((self.counts(e) for e in range(epoch)), np.zeros_like(counts))
            drawn = [self._drawn(k, before[k], counts[k]) for k in range(len(self.rows))]
            shuffled = np.argsort(random_bits(self.seed, epoch).random_raw(self.examples), kind="stable")
            place = np.empty(self.examples, np.int64)
            place[shuffled] = np.arange(self.examples)  # a task's examples keep their order
            starts = np.cumsum(counts) - counts
            order = np.empty(self.examples, np.int64)
            for k, mine in enumerate(drawn):
                order[np.sort(place[starts[k] : starts[k] + counts[k]])] = mine
            for old in [known for known in list(self._orders) if known < epoch - 1]:
                self._orders.pop(old, None)
            self._orders[epoch] = order
        return self._orders[epoch]

    def _drawn(self, task: int, first: int, count: int) -> Indices:
        """The examples with the numbers from `first` on of a task's endless order."""
        if not count:
            return np.zeros(0, np.int64)
        size = len(self.rows[task])
        epochs = range(first // size, (first + count - 1) // size + 1)
        orders = [np.argsort(random_bits(self.seed, epoch, task, ORDER_OF_TASK).random_raw(size)) for epoch in epochs]
        start = first - epochs[0] * size
        drawn: Indices = self.rows[task][np.concatenate(orders)[start : start + count]]
        return drawn
