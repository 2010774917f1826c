"""The same on a PostgreSQL server: kills, many workers, and a server that is restarted in mid-search."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from research.common.errors import UserError
from research.sweep.storage import StorageLost
from research.sweep.study import open_search, read_search
from tests.sweep import dummy
from tests.sweep.conftest import Postgres

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forkserver")]


def test_kills(postgres: Postgres, tmp_path: Path) -> None:
    sweep = dummy.sweep_in(tmp_path / "killed", 40, postgres.new_database("kills"))
    whole = dummy.sweep_in(tmp_path / "whole", 40)
    dummy.work(whole)
    dummy.kill_at_random(sweep, kills=20, workers=3, seed=2, step_seconds=0.03)
    assert dummy.outcomes(read_search(sweep)) == dummy.outcomes(read_search(whole))
    assert dummy.assert_one_worker_at_a_time(sweep, 40) >= 8


def test_a_restart_in_mid_search_fails_no_trial(postgres: Postgres, tmp_path: Path) -> None:
    sweep = dummy.sweep_in(tmp_path, 16, postgres.new_database("restart"))
    workers = [dummy.start(sweep, step_seconds=0.05) for _ in range(3)]
    for _ in range(2):
        time.sleep(1.0)
        postgres.stop()
        time.sleep(1.0)
        postgres.start()
    for worker in workers:
        worker.join(90)
        assert worker.exitcode == 0
    found = dummy.outcomes(read_search(sweep))
    assert [(n, state) for n, state, *_ in found] == [(n, "COMPLETE") for n in range(16)]
    assert dummy.assert_one_worker_at_a_time(sweep, 16) == 0


def test_a_server_that_stays_away_is_given_up_without_harm(postgres: Postgres, tmp_path: Path) -> None:
    sweep = dummy.sweep_in(tmp_path, 2, postgres.new_database("away"))
    sweep.storage = dataclasses.replace(sweep.storage, wait_seconds=1.0)
    search = open_search(sweep, dummy.base(), dummy.ACCURACY, False)
    taken = search.next()
    assert taken is not None
    postgres.stop()
    try:
        with pytest.raises(StorageLost, match="has not answered for 1 s"):
            search.patience(lambda: taken[0].report(0.5, 1))
        with pytest.raises(StorageLost):
            open_search(sweep, dummy.base(), dummy.ACCURACY, False)
        search.give_back(*taken)
    finally:
        postgres.start()
    dummy.work(sweep)
    assert [state for _, state, *_ in dummy.outcomes(read_search(sweep))] == ["COMPLETE"] * 2


def test_a_database_that_does_not_exist(postgres: Postgres, tmp_path: Path) -> None:
    url = f"postgresql://research@127.0.0.1:{postgres.port}/nowhere"
    sweep = dummy.sweep_in(tmp_path, 2, url)
    sweep.storage = dataclasses.replace(sweep.storage, wait_seconds=0.5)
    with pytest.raises(UserError, match='database "nowhere" does not exist'):
        open_search(sweep, dummy.base(), dummy.ACCURACY, False)
