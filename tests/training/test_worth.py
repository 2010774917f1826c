"""What a finished run prints beside its scores: those of answers that know nothing of the text, and a warning."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from research.common.console import console, print_scores
from research.common.text import signed
from research.report.tables.cells import cell, per_cent
from research.report.tables.scores import score_text
from research.tracking import predictions
from research.tracking.run import Run
from research.training.finish import report, worth
from tests.report.synthetic import write_run


def test_baselines_stand_in_the_table_of_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(write_run(tmp_path / "run", examples=100))
    lowest, warning = worth(run, "test")
    gold = predictions.read(run.predictions / "test.parquet").column("gold").to_pylist()
    share = gold.count("positive") / 100
    assert (
        lowest["random by class prior"]["accuracy"] == pytest.approx(share**2 + (1 - share) ** 2)
        and lowest["most frequent label"]["mcc"] == 0.0
    )
    assert warning is None
    print_scores({"test": {"accuracy": 0.9}}, beside=lowest)
    said = " ".join(capsys.readouterr().err.split())
    assert "most frequent label" in said and "random by class prior" in said and "0.9000" in said


@pytest.mark.parametrize("splits", [("test",), ("validation", "test")])
def test_baselines_beside_two_splits_say_of_which_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], splits: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "width", 200)
    run = Run(write_run(tmp_path / "run"))
    assert run.result is not None
    speed = {"examples": 8, "train_seconds": 2.0, "examples_per_second": 4.0, "tokens_per_second": 64.0}
    scores = {split: run.result["metrics"][split] for split in splits}
    report({**run.result, **speed, "metrics": scores, "metric": None}, run)
    head = next(line for line in capsys.readouterr().err.splitlines() if "most frequent label" in line)
    assert ("most frequent label, test" in head) == (len(splits) == 2)


def test_what_rounds_to_zero_has_no_sign(capsys: pytest.CaptureFixture[str]) -> None:
    print_scores({"test": {"mcc": -1e-17}}, beside={"random": {"mcc": -0.00004}})
    said = capsys.readouterr().err
    assert said.count("0.0000") == 2 and "-0" not in said
    assert [signed(x, 2) for x in (-0.004, 0.004, 0.005001, -1.0)] == ["0.00", "0.00", "+0.01", "-1.00"]
    assert per_cent(-1e-9).text == score_text(-1e-9, None) == "0.0" and cell(-1e-9).text == "0.0000"


def test_one_answer_to_everything_is_a_warning(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path / "run"))
    path = run.predictions / "test.parquet"
    table = predictions.read(path)
    place = table.column_names.index("prediction")
    predictions.write(table.set_column(place, "prediction", pa.array(["positive"] * table.num_rows)), path)
    assert worth(run, "test")[1] == (
        "Every test example got the answer 'positive': the scores say nothing of what was learned."
    )


def test_entities_are_worth_no_entity_where_the_training_data_are_not_known(tmp_path: Path) -> None:
    lowest, warning = worth(Run(write_run(tmp_path / "run", task="ner", data_set="news")), "test")
    assert list(lowest) == ["no entity"] and lowest["no entity"]["f1"] == 0.0 and warning is None
    assert 0.1 < lowest["no entity"]["accuracy"] < 1


def test_recorded_baselines_are_shown(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path / "run"))
    known = {"test": {"entities of the training data": {"f1": 0.5}}}
    (run.path / "result.json").write_text(json.dumps({**(run.result or {}), "baselines": known}))
    assert worth(run, "test")[0] == known["test"]


def test_a_run_that_scored_nothing_says_what_to_add(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(write_run(tmp_path / "run"))
    assert run.result is not None
    speed = {"examples": 8, "train_seconds": 2.0, "examples_per_second": 4.0, "tokens_per_second": 64.0}
    report({**run.result, **speed, "metrics": {"validation": {}, "test": None}}, run)
    said = " ".join(capsys.readouterr().err.split())
    assert "Nothing was scored" in said and "`data.validation: 0.1`" in said and "Scores" not in said
    assert "8 examples in 2.0 s (4 examples/s, 64 tokens/s)" in said
    report({**run.result, **speed, "steps": 0, "metrics": {"validation": {}, "test": None}}, run)
    said = capsys.readouterr().err
    assert "Nothing was trained: the run has 0 steps." in said and "examples in" not in said
