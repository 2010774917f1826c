"""`research evaluate RUN --input FILE`: the run's own scores on labelled rows of another file, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import research
from research.cli import main
from research.inference.evaluate import evaluate_file
from research.report.grouping import group_runs
from research.report.records import read_records
from research.report.statistics.one_table import intervals
from research.report.statistics.summary import pools, summarise
from research.tracking import predictions
from research.tracking.run import Run
from tests.conftest import write_jsonl
from tests.small_runs import SmallRuns
from tests.tasks.test_conformance import TASKS
from tests.tasks.test_translation import make_model

pytestmark = pytest.mark.slow


def pairs(folder: Path, count: int, first: int) -> str:
    rows = [{"source": f"good film {first + i}", "target": f"a film {first + i}"} for i in range(count)]
    return str(write_jsonl(folder / f"pairs-{first}.jsonl", rows))


def trained(task: str, small_runs: SmallRuns, folder: Path) -> tuple[Run, str]:
    """A run and its test file."""
    if task != "translation":
        return small_runs.train(task), small_runs.data[task]["test"]
    data = {name: pairs(folder, 8, 100 * i) for i, name in enumerate(("train", "validation", "test"))}
    small_runs.model = make_model(folder / "t5", "t5")
    return small_runs.train(task, "task.max_new_tokens=8", "task.max_target_tokens=8", data=data), data["test"]


@pytest.mark.parametrize("task", ["sentiment", "ner", "qa", "translation"])
def test_the_scores_are_those_of_the_run_and_nothing_is_written(
    task: str, small_runs: SmallRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = trained(task, small_runs, tmp_path)
    assert run.result is not None
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    output = tmp_path / "out.parquet"
    capsys.readouterr()
    assert main(["evaluate", str(run.path), "--input", file, "--output", str(output)]) == 0
    said = capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    table, scores = evaluate_file(run, file)
    assert scores == run.result["metrics"]["test"] == research.load(run.path).evaluate(file=file)
    assert table.equals(pq.read_table(output)) and predictions.score(table).items() <= scores.items()
    own = pq.read_table(run.predictions / "test.parquet")
    assert table.column("prediction").to_pylist() == own.column("prediction").to_pylist()
    grid = group_runs(read_records([run.path]))
    summary = summarise(grid, pools(grid)[0])[-1]  # what a report of this run says
    interval = intervals(table)[summary.group.metric]
    assert summary.interval == interval
    assert "95 % from" in said and f"{interval.low:.4f}" in said and f"{interval.high:.4f}" in said


def test_an_interval_by_hand() -> None:
    """8 of 10 right: Wilson's limits with Student's t of 9 degrees of freedom, t² = 5.117. The centre is
    (0.8 + t²/20) / (1 + t²/10) = 0.698, half the width t / (1 + t²/10) sqrt(0.16/10 + t²/400) = 0.254."""
    rows = {"id": [str(i) for i in range(10)], "gold": ["a"] * 10, "prediction": ["a"] * 8 + ["b"] * 2,
            "probabilities": [[1.0, 0.0]] * 8 + [[0.0, 1.0]] * 2}  # fmt: skip
    settings = {"scorer": "classification", "labels": ["a", "b"]}
    table = pa.table(rows).replace_schema_metadata({predictions.KEY: json.dumps(settings).encode()})
    found = intervals(table)["accuracy"]
    assert (found.low, found.high) == pytest.approx((0.444, 0.952), abs=0.005)  # the variance is a bootstrap's
    assert intervals(table, "gold")["accuracy"].over == "clusters"


def test_bad_files_are_refused(small_runs: SmallRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentiment, ner = small_runs.train("sentiment"), small_runs.train("ner")
    output = tmp_path / "out.jsonl"

    def refused(run: Run, rows: list[dict[str, Any]], *more: str) -> str:
        path = write_jsonl(tmp_path / "in.jsonl", rows)
        capsys.readouterr()
        assert main(["evaluate", str(run.path), "--input", str(path), "--output", str(output), *more]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("research: ")]
        assert len(lines) == 1 and not output.exists()
        return lines[0].replace(str(path), "in.jsonl")

    good = {"text": "a", "label": "positive"}
    other = refused(sentiment, [good, {"text": "b", "label": "mixed"}])
    assert other == (
        "research: in.jsonl, line 2: 'mixed' is none of the run's labels, negative, positive; correct it, or take the "
        "row out."
    )
    assert "in.jsonl: no column 'label'" in refused(sentiment, [{"text": "a"}])
    assert "in.jsonl, line 2: 'label' is null or missing" in refused(sentiment, [good, {"text": "a", "label": None}])
    assert "leave --split and --logits out" in refused(sentiment, [good], "--split", "test")
    place = refused(ner, [{"tokens": ["a"], "tags": ["O"]}, {"tokens": ["a"], "tags": ["B-GOD"]}])
    assert "in.jsonl, line 2: 'GOD' is none of the run's labels, LOC, O, ORG, PER" in place
    assert "'S-PER' is no tag of IOB2, as the run's are" in refused(ner, [{"tokens": ["a"], "tags": ["S-PER"]}])
    assert main(["evaluate", str(ner.path), "--output", str(output)]) == 2
    assert "--output and key=value go with --input FILE" in capsys.readouterr().err
    assert main(["evaluate", str(ner.path), "--input", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "changed", "said"),
    [
        ("multi_label", {"label": ["a", "c"]}, "'c' is none of the run's labels, a, b"),
        ("multi_label", {"label": "a;c"}, "'c' is none of the run's labels, a, b"),
        ("relation", {"label": "Near(e1,e2)"}, "'Near(e1,e2)' is none of the run's labels, In(e1,e2), Other"),
        ("ordinal", {"label": 4}, "'4' is none of the run's labels, 1, 2, 3"),
        ("hierarchical", {"label": "c"}, "'c' is none of the run's labels, a, b"),
        ("intent_slots", {"label": "c"}, "'c' is none of the run's labels, a, b"),
        ("intent_slots", {"tags": ["O"] * 11 + ["B-GOD"]}, "'GOD' is none of the run's labels, LOC, O, PER"),
    ],
)
def test_labels_that_the_run_has_not_are_refused(
    task: str, changed: dict[str, Any], said: str, small_runs: SmallRuns, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    row = TASKS[task][0]
    files = {
        name: str(write_jsonl(tmp_path / f"{name}.jsonl", [row(i + 100 * k) for i in range(6)]))
        for k, name in enumerate(("train", "validation"))
    }
    data = {**files, "max_length": 48, "max_overlap": 1.0}
    run = small_runs.train(task, data=data, optim={"max_steps": 0})
    path = write_jsonl(tmp_path / "in.jsonl", [row(0), {**row(1), **changed}])
    capsys.readouterr()
    assert main(["evaluate", str(run.path), "--input", str(path)]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("research: ")]
    assert line == f"research: {path}, line 2: {said}; correct it, or take the row out."


def test_columns_are_read_as_asked(small_runs: SmallRuns, tmp_path: Path) -> None:
    run = small_runs.train("sentiment")
    path = tmp_path / "in.csv"
    path.write_text("body;mood\ngood film;positive\nbad;negative\n")
    keys = ["data.columns.text=body", "data.columns.label=mood"]
    assert main(["evaluate", str(run.path), *keys, "--input", str(path)]) == 0
    assert evaluate_file(run, str(path), keys)[0].column("gold").to_pylist() == ["positive", "negative"]
