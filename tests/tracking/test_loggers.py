"""Loggers beside W&B: each is given every row and the final scores, and none can end a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from research.cli import main
from research.common.errors import UserError
from research.config.load import load_config
from research.tracking.run import Run
from research.tracking.wandb import Tracker
from tests.small_runs import SmallRuns

OWN = """
from dataclasses import dataclass
from lightning.pytorch.loggers import CSVLogger
from research.config.key import key

@dataclass
class Keys:
    file: str = key("mine", "name of the folder")
    fails_at: int = key(-1, "the step at which the disk is full")

class Logger(CSVLogger):
    def __init__(self, keys, folder):
        super().__init__(folder, name=keys.file, version="")
        self.fails_at = keys.fails_at

    def log_metrics(self, metrics, step):
        if step == self.fails_at:
            raise OSError("no space left")
        super().log_metrics(metrics, step)
"""


def open_run(folder: Path, loggers: dict[str, Any], **wandb: Any) -> tuple[Run, Any]:
    folder.mkdir(exist_ok=True)
    content = {
        "task": "sentiment", "model": {"name": "m"}, "data": {"train": "t.jsonl"}, "loggers": loggers,
        "wandb": {"mode": "disabled", **wandb}, "run_dir": str(folder / "run"),
    }  # fmt: skip
    (folder / "mine.yaml").write_text(json.dumps(content))
    config = load_config(folder / "mine.yaml")
    run = Run(str(config.run_dir))
    run.path.mkdir(exist_ok=True)
    return run, config


def record(run: Run, config: Any, steps: range) -> None:
    tracker = Tracker(run, config)
    for step in steps:
        run.log(step, {"train/loss": step / 4})
        tracker.log(step, {"train/loss": step / 4})
    tracker.finish({"metrics": {"test": {"f1": 0.5, "f1/it (is)": 1.0}}, "steps": steps[-1]}, {}, None)
    run.close()


def test_csv_holds_every_row_of_all_attempts(tmp_path: Path) -> None:
    for steps in (range(3), range(3, 5)):
        run, config = open_run(tmp_path, {"csv": {}})
        record(run, config, steps)
    rows = pd.read_csv(run.path / "csv" / "metrics.csv")
    assert list(rows["train/loss"].dropna()) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert list(rows["step"]) == [0, 1, 2, 3, 4, 4] and rows["test/f1"].iloc[-1] == 0.5
    assert "lr: 5.0e-05" in (run.path / "csv" / "hparams.yaml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("given", [{"loggers": {"tensorboard": {}}}, {"loggers": {}, "tensorboard": True}])
def test_tensorboard_by_its_old_name_too(tmp_path: Path, given: dict[str, Any]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, config = open_run(tmp_path, **given)
    record(run, config, range(3))
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(0, 0.0), (1, 0.25), (2, 0.5)]


@pytest.mark.slow
def test_mlflow_has_one_run_of_all_attempts(tmp_path: Path) -> None:
    import mlflow

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for steps in (range(3), range(3, 5)):
        run, config = open_run(tmp_path, {"mlflow": {"uri": uri, "experiment": "reviews"}})
        record(run, config, steps)
    client = mlflow.MlflowClient(uri)
    [found] = client.search_runs([client.get_experiment_by_name("reviews").experiment_id])
    assert found.info.run_id == (run.path / "mlflow" / "run_id").read_text().strip()
    history = [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, "train/loss")]
    assert history == [(step, step / 4) for step in range(5)]
    assert found.data.metrics["test/f1"] == 0.5 and found.data.metrics["test/f1/it _is_"] == 1.0
    assert found.data.params["optim/lr"] == "5e-05" and found.info.status == "FINISHED"


def test_a_logger_of_the_users_own_that_fails_is_silent_from_then_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "my_logger.py").write_text(OWN)
    for fails_at in (-1, 3):
        own = {"./my_logger.py": {"file": f"own{fails_at}", "fails_at": fails_at}}
        run, config = open_run(tmp_path, {**own, "csv": {}})
        record(run, config, range(6))
        assert (run.path / f"own{fails_at}" / "metrics.csv").is_file() == (fails_at < 0)
    assert len(pd.read_csv(run.path / "csv" / "metrics.csv")) == 13  # of both attempts, and the scores
    assert len(pd.read_csv(run.path / "own-1" / "metrics.csv")) == 7
    assert [record.getMessage() for record in caplog.records] == [
        "The logger my_logger stopped recording (OSError: no space left); the run folder has everything."
    ]


def test_a_missing_logger_is_reported_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"mlfow must be one of csv, mlflow, tensorboard, .* Did you mean mlflow"):
        open_run(tmp_path, {"mlfow": {}})
    run, config = open_run(tmp_path, {"mlflow": {}})
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", False)
    with pytest.raises(UserError, match=r"pip install 'research\[mlflow\]'"):
        Tracker(run, config)


@pytest.mark.slow
def test_loggers_of_a_run_may_change_when_it_is_resumed(small_runs: SmallRuns) -> None:
    run = small_runs.train("sentiment", "loggers={csv: {}}")
    rows = pd.read_csv(run.path / "csv" / "metrics.csv")
    assert list(rows["train/loss"].dropna()) == [row["train/loss"] for row in run.metrics() if "train/loss" in row]
    assert rows["test/accuracy"].dropna().tolist() == [(run.result or {})["metrics"]["test"]["accuracy"]]
    experiment = str(run.path.parent / "experiment.yaml")
    assert main(["train", experiment, f"run_dir={run.path}", "loggers={tensorboard: {}}"]) == 0  # finished, not refused
