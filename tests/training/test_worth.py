"""What a finished run prints beside its scores: those of answers that know nothing of the text, and a warning."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from research.common.console import print_scores
from research.tracking import predictions
from research.tracking.run import Run
from research.training.finish import report, worth
from tests.report.synthetic import write_run


def test_baselines_stand_in_the_table_of_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(write_run(tmp_path / "run", examples=100))
    lowest, warning = worth(run, "test")
    assert lowest["random label"]["accuracy"] == 0.5 and lowest["most frequent label"]["mcc"] == 0.0
    assert warning is None
    print_scores({"test": {"accuracy": 0.9}}, beside=lowest)
    said = " ".join(capsys.readouterr().err.split())
    assert "most frequent label" in said and "random label" in said and "0.9000" in said and "0.5000" in said


def test_one_answer_to_everything_is_a_warning(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path / "run"))
    path = run.predictions / "test.parquet"
    table = predictions.read(path)
    place = table.column_names.index("prediction")
    predictions.write(table.set_column(place, "prediction", pa.array(["positive"] * table.num_rows)), path)
    assert worth(run, "test")[1] == (
        "Every test example got the answer 'positive': the scores say nothing of what was learned."
    )


def test_a_metric_without_labels_has_no_baselines(tmp_path: Path) -> None:
    assert worth(Run(write_run(tmp_path / "run", task="ner", data_set="news")), "test") == ({}, None)


def test_a_run_that_scored_nothing_says_what_to_add(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(write_run(tmp_path / "run"))
    assert run.result is not None
    speed = {"examples": 8, "train_seconds": 2.0, "examples_per_second": 4.0, "tokens_per_second": 64.0}
    report({**run.result, **speed, "metrics": {"validation": {}, "test": None}}, run)
    said = " ".join(capsys.readouterr().err.split())
    assert "Nothing was scored" in said and "`data.validation: 0.1`" in said and "Scores" not in said
    assert "8 examples in 2.0 s (4 examples/s, 64 tokens/s)" in said
