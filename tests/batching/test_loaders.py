"""The steps of a range come in their order, each made ahead by a thread, and by no other process."""

from __future__ import annotations

import os
import threading
from collections import deque
from itertools import islice
from typing import Any

import pytest

from research.batching.loaders import StepLoader


class Counter:
    """Stands for a planner: notes what it was asked, and where."""

    def __init__(self) -> None:
        self.asked: deque[tuple[int, int, int]] = deque()

    def __call__(self, step: int) -> int:
        self.asked.append((step, os.getpid(), threading.get_ident()))
        return step * 10


@pytest.mark.parametrize("workers", [0, 1, 3, 9])
def test_steps_come_in_order(workers: int) -> None:
    planner: Any = Counter()
    assert list[Any](StepLoader(planner, lambda: range(4, 9), workers)) == [40, 50, 60, 70, 80]
    steps, processes, threads = zip(*planner.asked, strict=True)
    assert sorted(steps) == [4, 5, 6, 7, 8] and set(processes) == {os.getpid()}
    assert (threading.get_ident() in threads) == (workers == 0)


@pytest.mark.parametrize(("workers", "made"), [(0, 2), (1, 3), (3, 5)])
def test_only_so_many_are_made_ahead(workers: int, made: int) -> None:
    planner: Any = Counter()
    steps = iter(StepLoader(planner, lambda: range(100), workers))
    assert list[Any](islice(steps, 2)) == [0, 10]
    steps.close()  # type: ignore[attr-defined]
    assert sorted(step for step, _, _ in planner.asked) == list(range(made))


def test_a_mistake_in_a_thread_is_raised() -> None:
    def planner(step: int) -> int:
        return 1 // (2 - step)

    with pytest.raises(ZeroDivisionError):
        list(StepLoader(planner, lambda: range(3), 2))  # type: ignore[arg-type]
