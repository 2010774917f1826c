"""What a training loop iterates over: the steps of a range, and the micro-batches of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from research.data.pack import MicroBatch, Planner, StepItem, pack
from research.data.plan import Indices
from research.data.store import Store


class StepLoader:
    """Yields the items of a range of steps, each made while the one before is computed."""

    def __init__(self, planner: Planner, steps: range, workers: int) -> None:
        self.planner, self.steps, self.workers = planner, steps, workers

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[StepItem]:
        if self.workers:
            dataset: Any = _StepDataset(self.planner)
            # A generator of its own: without one, each iterator draws from the global stream and shifts it.
            generator = torch.Generator()
            yield from DataLoader(
                dataset, batch_size=None, sampler=self.steps, num_workers=self.workers, generator=generator
            )
            return
        with ThreadPoolExecutor(1) as thread:
            ahead = [thread.submit(self.planner, step) for step in self.steps[:1]]
            for step in self.steps:
                item = ahead.pop().result()
                if step + 1 in self.steps:
                    ahead.append(thread.submit(self.planner, step + 1))
                yield item


class _StepDataset:
    def __init__(self, planner: Planner) -> None:
        self.planner = planner

    def __getitem__(self, step: int) -> StepItem:
        return self.planner(step)


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
