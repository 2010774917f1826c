"""The storage under load: the benchmark's own run, smaller, on the journal and on PostgreSQL."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.sweep.conftest import Postgres

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import sweep_storage

pytestmark = pytest.mark.slow


def test_each_enqueued_trial_is_run_exactly_once(tmp_path: Path) -> None:
    """`run` asserts it of every trial, and of every report."""
    assert sweep_storage.run(tmp_path, trials=60, reports=20, workers=8, storage=None)["trials"] == 60


def test_the_same_on_postgresql(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database("load")
    assert sweep_storage.run(tmp_path, trials=24, reports=5, workers=8, storage=url)["trials"] == 24
