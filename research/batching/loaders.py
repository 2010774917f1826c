"""What a training loop iterates over: the steps of a range, and the micro-batches of an evaluation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from research.batching.pack import MicroBatch, Planner, StepItem, pack
from research.batching.plan import Indices
from research.batching.store import Store


class StepLoader:
    """Yields the items of a range of steps, which is asked for each time; so many threads make the next ones while one
    is computed.

    Threads, for a process forked from one that has threads of its own (gloo's, the checkpoint writer's) may find one of
    their locks taken indefinitely; and packing costs less than handing a packed step from one process to another.
    """

    def __init__(self, planner: Planner, steps: Callable[[], range], workers: int) -> None:
        self.planner, self.steps, self.workers = planner, steps, workers

    def __len__(self) -> int:
        return len(self.steps())

    def __iter__(self) -> Iterator[StepItem]:
        steps = self.steps()
        if not self.workers:
            yield from map(self.planner, steps)
            return
        with ThreadPoolExecutor(self.workers) as threads:
            ahead = deque(threads.submit(self.planner, step) for step in steps[: self.workers])
            for step in steps:
                item = ahead.popleft().result()
                if step + self.workers in steps:
                    ahead.append(threads.submit(self.planner, step + self.workers))
                yield item


class EvaluationBatches:
    """The micro-batches of one rank in an evaluation; idle ones follow, up to `least`."""

    def __init__(self, store: Store, rows: list[Indices], packed: bool, least: int = 0) -> None:
        self.store, self.rows, self.packed, self.least = store, rows, packed, least

    def __len__(self) -> int:
        return max(len(self.rows), self.least)

    def __iter__(self) -> Iterator[MicroBatch]:
        for rows in self.rows:
            yield pack(self.store, rows, self.packed)
        shortest = np.array([self.store.tokens.argmin()])
        for _ in range(self.least - len(self.rows)):
            yield pack(self.store, shortest, self.packed, idle=True)
