"""Baselines, and what is said of numbers that mean little."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from research.report.compare import compare_runs
from research.report.findings import findings
from research.report.grouping import group_runs
from research.report.records import read_records
from research.report.statistics.baselines import baselines
from research.report.statistics.summary import pools, summarise
from research.report.tables.scores import main_table
from research.tracking import predictions
from tests.report.handmade import classes
from tests.report.synthetic import MakeRun, write_json


def said(folder: Path) -> Any:
    grid = group_runs(read_records([folder]))
    pooled, _ = pools(grid)
    summaries, lowest = summarise(grid, pooled), baselines(grid)
    return findings(grid, pooled, summaries, lowest), main_table(grid, summaries, lowest)


def answering(run: Path, label: str) -> None:
    """The run, with one label as the answer to every test example."""
    path = run / "predictions" / "test.parquet"
    table = predictions.read(path)
    place = table.column_names.index("prediction")
    predictions.write(table.set_column(place, "prediction", pa.array([label] * table.num_rows)), path)
    result = json.loads((run / "result.json").read_text())
    result["metrics"]["test"] = predictions.score(predictions.read(path))
    write_json(run / "result.json", result)


def test_baselines_stand_below_the_systems(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", examples=100)
    grid = group_runs(read_records([tmp_path]))
    gold = predictions.read(tmp_path / "runs" / "a" / "predictions" / "test.parquet").column("gold").to_pylist()
    share = max(gold.count("negative"), gold.count("positive")) / 100
    values = {(b.name, b.split): b.value for b in baselines(grid)}
    assert values["most frequent label", "test"] == share and values["random by class prior", "test"] == pytest.approx(
        share**2 + (1 - share) ** 2
    )
    _, table = said(tmp_path)
    assert [row[0].text for row in table.rows] == ["encoder-a", "most frequent label", "random by class prior"]
    assert table.rows[1][-1].text == f"{100 * share:.1f}" and table.caption.endswith("know nothing of the text.")


def test_macro_f1_of_the_baselines() -> None:
    table = classes(["no"] * 6 + ["yes"] * 2, ["no"] * 8, [[0.9, 0.1]] * 8)
    found = {name: scores["f1"] for name, scores in predictions.metric(table).baselines(table).items()}
    assert found["most frequent label"] == pytest.approx((2 * 6 / 14) / 2)
    expected = (2 * 4.5 / (6 + 6) + 2 * 0.5 / (2 + 2)) / 2  # three in four answers are no: 4.5 of 6 right, 0.5 of 2
    assert found["random by class prior"] == pytest.approx(expected)


def test_a_model_that_gives_one_answer_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(str(seed), seed=seed, hashed=False) for seed in range(2)]
    for run in runs:
        answering(run, "positive")
    notes, _ = said(tmp_path)
    assert any("answers 'positive' to every test example (seeds 0, 1)" in note for note in notes)
    assert any("seeds 0 and 1 give the same test predictions" in note for note in notes)
    answering(runs[1], "negative")
    own, _ = said(tmp_path)
    assert any("answers 'positive' to every test example (seed 0)" in note for note in own)
    assert any("answers 'negative' to every test example (seed 1)" in note for note in own)
    answering(runs[1], "positive")
    other = make_run("other", config={"optim.lr": 1e-3}, hashed=False)
    compared = compare_runs(read_records([other.parent / "0", other.parent / "1"]), read_records([other])).notes
    assert any("answers 'positive' to every test example (seeds 0, 1)" in note for note in compared)
    assert sum("give the same test predictions" in note for note in compared) == 1
    assert any("is no better than the most frequent label" in note for note in notes)


@pytest.mark.in_check(1)
@pytest.mark.parametrize(("examples", "is_small"), [(60, True), (3000, False)])
def test_a_test_set_too_small_is_named(make_run: MakeRun, tmp_path: Path, examples: Any, is_small: Any) -> None:
    make_run("a", examples=examples)
    notes, _ = said(tmp_path)
    assert any(f"with {examples:,} test examples the 95 % interval" in note for note in notes) == is_small
    assert not any("answers" in note or "no better" in note for note in notes)
