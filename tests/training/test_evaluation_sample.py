"""trainer.evaluate_examples: a fixed sample of validation chooses the best checkpoint, which is scored on all of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from research.cli import main
from research.data.labels import label_text
from research.report.figures.learning import split_of, watched
from research.report.grouping import group_runs
from research.report.records import read_records
from research.tracking import predictions
from research.tracking.run import Run
from tests.small_runs import SmallRuns, assert_same_bits, assert_same_up_to_rounding

TRAINER = {
    "log_every_steps": 1, "precision": "fp32", "progress": False, "evaluate_every_steps": 2, "evaluate_examples": 8,
    "keep_predictions": True, "keep_checkpoints": "all",
}  # fmt: skip


def scores_of(run: Run, ids: list[str]) -> dict[str, float]:
    """The scores of these rows of the run's predictions of all validation data."""
    table = predictions.read(run.predictions / "validation.parquet")
    places = [table.column("id").to_pylist().index(row) for row in ids]
    return predictions.score(table.take(places))


def result_of(run: Run) -> dict[str, Any]:
    assert run.result is not None
    return run.result


@pytest.mark.parametrize("task", ["sentiment", "ner", "qa"])
def test_a_sample_chooses_the_checkpoint_that_all_validation_data_scores(small_runs: SmallRuns, task: str) -> None:
    run = small_runs.train(task, trainer=TRAINER)
    result, rows = result_of(run), run.metrics()
    drawn = json.loads((run.path / "splits.json").read_text())["sample"]
    assert len(drawn) == 8 == result["sample"]["examples"] and len(set(drawn)) == 8
    table = predictions.read(run.predictions / "validation.parquet")
    assert len(table) == run.provenance["data"]["validation"]["examples"] > 8
    monitor = result["monitor"]
    evaluated = {row["step"]: row[f"sample/{monitor}"] for row in rows if f"sample/{monitor}" in row}
    assert [*evaluated] == [2, 4, 6] and not any(key.startswith("validation/") for row in rows for key in row)
    assert result["sample"]["metrics"][monitor] == max(evaluated.values()) == evaluated[result["best_step"]]
    whole = predictions.score(table)
    assert {name: result["metrics"]["validation"][name] for name in whole} == whole
    of_sample = scores_of(run, drawn)
    assert {name: result["sample"]["metrics"][name] for name in of_sample} == pytest.approx(of_sample)
    kept = predictions.read(run.predictions / f"sample-{result['best_step']:08d}.parquet")
    assert sorted(kept.column("id").to_pylist()) == sorted(drawn)


def test_training_is_that_without_a_sample(small_runs: SmallRuns) -> None:
    without = {key: value for key, value in TRAINER.items() if key != "evaluate_examples"}
    plain, sampled = small_runs.train("sentiment", trainer=without), small_runs.train("sentiment", trainer=TRAINER)
    train = [{k: v for k, v in row.items() if k.startswith("train/")} for row in plain.metrics() if "train/loss" in row]
    assert train == [
        {k: v for k, v in row.items() if k.startswith("train/")} for row in sampled.metrics() if "train/loss" in row
    ]
    assert "sample" not in result_of(plain) and "sample" not in plain.provenance["data"]


def test_it_holds_the_classes_shares(small_runs: SmallRuns) -> None:
    run = small_runs.train("sentiment", trainer=TRAINER)
    kept = predictions.read(run.predictions / "sample-00000002.parquet").column("gold").to_pylist()
    golds = predictions.read(run.predictions / "validation.parquet").column("gold").to_pylist()
    for label in set(golds):
        assert abs(kept.count(label) - 8 * golds.count(label) / len(golds)) < 1, label_text(label)


def test_more_than_there_are_is_all(small_runs: SmallRuns) -> None:
    result = result_of(small_runs.train("sentiment", trainer={**TRAINER, "evaluate_examples": 1000}))
    assert result["sample"]["metrics"] == pytest.approx(result["metrics"]["validation"])


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 4, 6])
def test_stopped_and_resumed_it_is_the_same(small_runs: SmallRuns, step: int) -> None:
    whole = small_runs.train("sentiment", trainer=TRAINER)
    arguments, folder = small_runs.stopped(step, "sentiment", trainer=TRAINER)
    assert main(arguments) == 0
    assert_same_bits(Run(folder), whole)
    assert result_of(Run(folder))["sample"] == result_of(whole)["sample"]


@pytest.mark.process
def test_on_two_ranks_it_is_the_same(small_runs: SmallRuns) -> None:
    one, two = (
        small_runs.train("sentiment", trainer=TRAINER),
        small_runs.train_ranks("sentiment", 2, trainer=TRAINER),
    )
    assert_same_up_to_rounding(two, one)
    assert result_of(two)["sample"]["metrics"] == pytest.approx(result_of(one)["sample"]["metrics"], rel=1e-5)


def test_the_learning_curve_is_of_the_sample(small_runs: SmallRuns) -> None:
    run = small_runs.train("sentiment", trainer=TRAINER)
    [group] = group_runs(read_records([run.path])).groups
    assert watched(group) == "sample/accuracy" and split_of([group]) == "validation (sample)"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["trainer.evaluate_examples=0"], "trainer.evaluate_examples=0"),
        (["data.validation=null"], "trainer.evaluate_examples=8: there is no validation data to take a sample of"),
    ],
)
def test_a_sample_of_nothing_is_refused(
    small_runs: SmallRuns, capsys: pytest.CaptureFixture[str], overrides: list[str], said: str
) -> None:
    arguments, _ = small_runs.arguments("sentiment", overrides, {"trainer": TRAINER})
    assert main(arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())
