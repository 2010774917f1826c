"""`kill -9` at random through whole searches: no trial lost, none twice, none left running, the same scores."""

from __future__ import annotations

from pathlib import Path

import pytest

from research.sweep.study import read_search
from tests.sweep import dummy

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forkserver")]


def test_a_hundred_kills_leave_the_same_search(tmp_path: Path) -> None:
    trials, kills = 150, 100
    whole, killed = (dummy.sweep_in(tmp_path / name, trials) for name in ("whole", "killed"))
    dummy.work(whole)
    dummy.kill_at_random(killed, kills, workers=3, seed=1, step_seconds=0.03)
    expected, found = (dummy.outcomes(read_search(sweep)) for sweep in (whole, killed))
    assert [(n, state) for n, state, *_ in found] == [(n, "COMPLETE") for n in range(trials)]
    assert found == expected
    assert dummy.assert_one_worker_at_a_time(killed, trials) >= 40


def test_nothing_is_run_twice_by_eight_workers(tmp_path: Path) -> None:
    sweep = dummy.sweep_in(tmp_path, 40)
    workers = [dummy.start(sweep) for _ in range(8)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    found = dummy.outcomes(read_search(sweep))
    assert [(n, state) for n, state, *_ in found] == [(n, "COMPLETE") for n in range(40)]
    assert dummy.assert_one_worker_at_a_time(sweep, 40) == 0
