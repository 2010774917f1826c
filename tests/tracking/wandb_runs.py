"""Runs that are recorded to a W&B server of the tests, and what W&B wrote of them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from research.common.files import write_json
from research.config.component import choose
from research.config.schema import Config
from research.tracking.run import Run
from research.tracking.wandb import Tracker
from tests.wandb_server import WandbServer

RESULT = {"task": "sentiment", "metrics": {"test": {"accuracy": 0.75, "per_class": {"good": {"f1": 0.5}}}}, "steps": 3}
PROVENANCE = {"attempts": [{"code": {"commit": "abc", "uncommitted_diff": "+1"}}], "packages": {"torch": "2"}}


def use(served: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in served.environment.items():
        monkeypatch.setenv(name, value)


def open_run(folder: Path, mode: str) -> tuple[Run, Config]:
    config = Config(task=choose("task", "sentiment"), run_dir=str(folder))
    config.model.name, config.wandb.mode, config.wandb.tags = "tiny", mode, ["one", "two"]  # type: ignore[assignment]
    run = Run.open(config)
    run.close()
    return run, config


def record(run: Run, config: Config, steps: range, exit_code: int = 0, predictions: Path | None = None) -> Tracker:
    """One attempt of a run; every row's x is its step / 4, except that of step 1."""
    tracker = Tracker(run, config)
    for step in steps:
        row = {"x": math.nan if step == 1 else step / 4}
        run.log(step, row)
        tracker.log(step, row)
    write_json(run.path / "provenance.json", PROVENANCE)
    if exit_code == 0:
        write_json(run.path / "result.json", RESULT)
    tracker.finish(RESULT if exit_code == 0 else {}, PROVENANCE, predictions, exit_code)
    run.close()
    return tracker


def write_predictions(run: Run, rows: int) -> Path:
    path = run.predictions / "test.parquet"
    spans = [[{"start": i, "label": "PER"}] for i in range(rows)]
    pq.write_table(pa.table({"id": [f"é{i}" for i in range(rows)], "gold": range(rows), "spans": spans}), path)
    return path


def logs(run: Run) -> list[Path]:
    return sorted(run.path.glob("wandb/*run-*/run-*.wandb"))


def inspect(file: Path) -> list[dict[str, Any]]:
    """The records of a log, by wandb's own reader."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


def rows_of(file: Path) -> dict[int, Any]:
    return {r["history"]["step"]["num"]: r["history"]["item"].get("x") for r in inspect(file) if r["type"] == "history"}
