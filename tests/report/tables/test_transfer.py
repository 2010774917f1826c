"""The table of what tasks gain from each other, from records made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from research.report.records import Record
from research.report.tables.cells import table_markdown
from research.report.tables.transfer import transfer_tables


def record(path: str, scores: dict[str, float], parent: str | None = None, steps: int = 9, **task: Any) -> Record:
    task = {"name": "multi", "train": [], **task}
    config: dict[str, Any] = {"task": task, "data": {"test": None, "fold": None}, "seed": 0}
    tasks = {name.partition(".")[0]: {"main": name.partition(".")[2]} for name in scores}
    result = {"tasks": tasks, "steps": steps, "metrics": {"validation": {"mean": 0.5, **scores}, "test": {}}}
    provenance = {"parent": {"run": parent}} if parent else {}
    return Record(Path(path), config, result, provenance, None)


def test_tasks_alone_together_and_after_another() -> None:
    alone = [record(f"/alone-a/{seed}", {"a.f1": 0.50 + 0.02 * seed}) for seed in range(2)]
    together = record("/both", {"a.f1": 0.6, "b.accuracy": 0.8})
    after = record("/after", {"b.accuracy": 0.9}, parent="/alone-a/0")
    [table] = transfer_tables([*alone, together, after])
    assert list(table.columns) == ["trained", "a f1 validation", "b accuracy validation"]
    lines = table_markdown(table).splitlines()[2:]
    assert lines[0] == "| alone | 51.0 ± 1.4 | – |"
    assert lines[1:] == ["| after a | – | 90.0 |", "| with a | – | 80.0 |", "| with b | 60.0 | – |"]
    assert table.rows[3][1].value == pytest.approx(0.6) and table.rows[3][1].runs == (Path("/both"),)


def test_a_run_that_began_from_another_is_never_alone() -> None:
    """From a plain run of one task, or from a run that the report is not of."""
    config: dict[str, Any] = {
        "task": {"name": "ner"}, "data": {"test": None, "fold": None, "title": "WNUT-17"}, "seed": 0,
    }  # fmt: skip
    plain = Record(Path("/ner/seed0"), config, None, {}, None)
    alone = record("/alone", {"a.f1": 0.5})
    known = record("/known", {"a.f1": 0.6}, parent="/ner/seed0")
    others = [record(f"/others/{i}", {"a.f1": 0.7}, parent=f"/runs/sst2/seed{i}") for i in range(2)]
    [table] = transfer_tables([plain, alone, known, *others])
    assert [row[0].text for row in table.rows] == ["alone", "after WNUT-17", "after sst2"]
    assert [row[1].text for row in table.rows] == ["50.0", "60.0", "70.0 ± 0.0"]


def test_untrained_heads_and_remembered_tasks_are_told() -> None:
    """The cells of `research continual`: before the first task, after it, and after it with examples of it."""
    both = {"a.f1": 0.5, "b.f1": 0.2}
    start = record("/start", {"a.f1": 0.1, "b.f1": 0.1}, steps=0)
    naive = record("/naive", both, parent="/first", train=["b"])
    replay = record("/replay", both, parent="/first", train=["b"], memory={"a": 10})
    [table] = transfer_tables([start, record("/first", both, train=["a"]), naive, replay])
    assert [row[0].text for row in table.rows] == ["alone", "after a", "after a; with a memory of a", "untrained"]
    assert [cell.text for cell in table.rows[3][1:]] == ["10.0", "10.0"]


def test_no_table_without_joint_tasks() -> None:
    plain = Record(
        Path("/x"), {"task": {"name": "ner"}, "data": {"test": None, "fold": None}, "seed": 0}, None, {}, None
    )
    assert transfer_tables([plain]) == [] == transfer_tables([record("/both", {"a.f1": 0.6})])
