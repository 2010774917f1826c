"""A metric of the user's own: trained by, reported where it is a module, and never run where it is but a file."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from research.cli import main
from research.common.errors import UserError
from research.config.load import load_config
from research.metrics import metric_of, smaller_is_better
from research.report.grouping import table_records
from research.report.records import read_records
from research.report.searches import find_searches
from research.tracking.run import Run
from research.training.preflight import refuse_wrong_experiment
from tests.conftest import copied, write_jsonl

METRIC = """
import numpy as np
from research.metrics.base import BaseMetric, Formula, ratio
from research.metrics.score import Score

class Metric(BaseMetric):
    scores = (Score("error_rate", "label error rate", smaller_is_better=True, high=float("inf")),)
    signature = "labels|average:micro"
    sentence = "the share of wrong labels"

    def widths(self):
        return {"labels": 2}

    def counts(self, table):
        rows = zip(table.column("gold").to_pylist(), table.column("prediction").to_pylist())
        return {"labels": np.array([(g != p, 1) for g, p in rows], dtype=float)}

    def formula(self, name):
        return Formula(("labels",), ratio) if name == "error_rate" else None

    def reported(self, sums):
        return ["error_rate"]
"""
TASK = """
from research.tasks.classification import Data as Classification
from research.tasks.classification import Module

class Data(Classification):
    metric = {metric!r}
"""


def write_experiment(folder: Path, tiny_model: Path, metric: str) -> Path:
    """An experiment on a task of the user's own that is scored by `metric`."""
    (folder / "my_task.py").write_text(TASK.format(metric=metric))
    rows = [{"text": text, "label": label} for text, label in (("good film", "a"), ("bad book", "b")) * 10]
    data = str(write_jsonl(folder / "rows.jsonl", rows))
    content = {
        "task": "./my_task.py",
        "model": {"name": str(tiny_model)},
        "data": {"train": data, "validation": copied(data), "test": copied(data, "test")},
        "optim": {"epochs": 8, "batch_size": 4},
        "trainer": {"precision": "fp32", "devices": 1, "monitor": "error_rate"},
        "wandb": {"mode": "disabled"},
    }
    (folder / "mine.yaml").write_text(json.dumps(content), encoding="utf-8")
    return folder / "mine.yaml"


def train(folder: Path, tiny_model: Path, metric: str) -> Path:
    """Two runs of such an experiment; returns the folder of both."""
    experiment = write_experiment(folder, tiny_model, metric)
    for lr in (5e-3, 1e-5):
        keys = [f"optim.lr={lr}", f"run_dir={folder}/runs/{lr}"]
        assert main(["train", str(experiment), *keys]) == 0
    return folder / "runs"


@pytest.mark.slow
def test_a_module_of_the_users_own_is_trained_by_and_reported(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "__init__.py").write_text("")
    (tmp_path / "scores" / "my_metric.py").write_text(METRIC)
    monkeypatch.syspath_prepend(str(tmp_path))
    runs = train(tmp_path, tiny_model, "scores.my_metric")
    assert "error_rate (label error rate)" in capsys.readouterr().err
    result = Run.read(runs / "0.005").result
    assert result is not None and result["metrics"]["test"]["error_rate"] == 0
    error_rate = {"name": "error_rate", "label": "label error rate", "low": 0.0, "high": None}
    assert result["metric"] == {
        "name": "scores.my_metric",
        "signature": "labels|average:micro",
        "scores": [{**error_rate, "smaller_is_better": True, "is_proportion": False}],
    }
    assert smaller_is_better("error_rate", "scores.my_metric") and not smaller_is_better("error_rate", None)
    assert main(["report", str(runs), "--output", str(tmp_path / "paper")]) == 0
    table = (tmp_path / "paper" / "tables" / "scores.md").read_text()
    checklist = (tmp_path / "paper" / "checklist.md").read_text()
    assert "label error rate" in table and "the share of wrong labels" in checklist
    for name in ("scores.my_metric", "scores"):
        del sys.modules[name]


@pytest.mark.slow
def test_a_file_beside_the_task_is_trained_by_and_not_run_by_a_report(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_metric.py").write_text(METRIC)
    runs = train(tmp_path, tiny_model, "./my_metric.py")
    result = Run.read(runs / "0.005").result
    assert result is not None and result["metric"]["name"] == str(tmp_path / "my_metric.py")
    (tmp_path / "my_metric.py").write_text("open('executed', 'w')\n" + METRIC)
    with pytest.raises(UserError, match="a file whose code a report does not run"):
        metric_of({"scorer": result["metric"]["name"]}, own_files=False)
    assert main(["report", str(runs), "--output", str(tmp_path / "paper")]) == 0
    assert "whose code a report does not run" in capsys.readouterr().out
    table = (tmp_path / "paper" / "tables" / "scores.md").read_text()
    assert "label error rate" in table and not Path("executed").exists()


@pytest.mark.slow
def test_a_sweep_and_its_report_minimise_a_score_of_which_a_users_file_says_that_less_is_better(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_metric.py").write_text(METRIC)
    sweep: dict[str, Any] = {
        "experiment": str(write_experiment(tmp_path, tiny_model, "./my_metric.py")),
        "folder": str(tmp_path / "search"),
        "space": {"optim.lr": {"choices": [5e-3, 1e-7]}},
        "sampler": {"name": "grid"},
        "pruner": {"name": "median", "min_steps": 1},
        "storage": {"url": f"sqlite:///{tmp_path}/study.db"},
    }
    path = tmp_path / "search.yaml"
    path.write_text(json.dumps({**sweep, "direction": "maximize"}), encoding="utf-8")
    assert main(["sweep", str(path)]) == 2
    assert "metric=error_rate: a smaller value is better" in capsys.readouterr().err
    path.write_text(json.dumps(sweep), encoding="utf-8")
    assert main(["sweep", str(path)]) == 0
    trials = {row["optim.lr"]: row for row in pq.read_table(tmp_path / "search" / "trials.parquet").to_pylist()}
    assert trials[5e-3]["score"] == 0 and trials[1e-7]["score"] > 0.2
    assert yaml.safe_load((tmp_path / "search" / "best.yaml").read_text())["optim"]["lr"] == 5e-3
    assert (tmp_path / "search" / "trials" / f"{trials[5e-3]['number']:04d}" / "seed0" / "model").is_dir()
    records = read_records([tmp_path / "search"])
    [search] = find_searches(records)
    assert search.best is not None and search.best.number == trials[5e-3]["number"] and not search.maximises
    assert (search.score.label, search.score.high) == ("label error rate", math.inf)
    assert [record.path for record in table_records(records)] == [search.best.runs[0].path]
    assert main(["report", str(tmp_path / "search"), "--output", str(tmp_path / "paper")]) == 0


def test_scores_of_a_users_metric_among_task_metrics_are_known_before_training(tmp_path: Path) -> None:
    (tmp_path / "my_metric.py").write_text(METRIC)
    rows = str(write_jsonl(tmp_path / "rows.jsonl", [{"source": "a", "target": "b"}]))
    task = {"name": "translation", "metrics": ["chrf", str(tmp_path / "my_metric.py")]}
    experiment = {"task": task, "model": {"name": "t5"}, "data": {"train": rows}, "trainer": {"monitor": "error_rate"}}
    (tmp_path / "mine.yaml").write_text(json.dumps(experiment))
    refuse_wrong_experiment(load_config(tmp_path / "mine.yaml"))
    with pytest.raises(UserError, match=r"monitor=bleu is not a score .* reports chrf, chrf_plus_plus, error_rate, "):
        refuse_wrong_experiment(load_config(tmp_path / "mine.yaml", ["trainer.monitor=bleu"]))
