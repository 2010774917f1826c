"""How OpenMP's threads wait is chosen by who else runs on the machine, unless the user has said it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from research.common import threads


@pytest.mark.parametrize(
    ("running", "cores", "environment", "passive"),
    [
        (1, 2, {"OMP_NUM_THREADS": "2"}, False),  # alone
        (2, 2, {"OMP_NUM_THREADS": "2"}, True),  # another process wants one of the two cores
        (15, 16, {"OMP_NUM_THREADS": "2"}, False),  # a core for each
        (16, 16, {"OMP_NUM_THREADS": "2"}, True),
        (9, 2, {"OMP_NUM_THREADS": "1"}, False),  # a single thread waits for no other
        (9, 2, {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "active"}, False),
        (9, 2, {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "1000"}, False),
    ],
)
def test_threads_sleep_where_cores_are_shared(
    running: int, cores: int, environment: dict[str, str], passive: bool
) -> None:
    assert threads.waiting(running, cores, environment) == ({"OMP_WAIT_POLICY": "passive"} if passive else {})


def test_without_a_number_of_threads_there_is_one_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert threads.waiting(1, 4, {}) == {} and threads.waiting(2, 4, {}) != {}


def test_running_processes_are_counted_where_the_system_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert threads.running_processes() >= 1

    def unreadable(self: object) -> str:
        raise OSError("no /proc here")

    monkeypatch.setattr(Path, "read_text", unreadable)
    assert threads.running_processes() == 1.0
