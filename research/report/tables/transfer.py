"""What tasks gain from each other: each task alone, together with others, and after another one.

A row says how the runs of joint tasks were trained, a column is a task; the scores are of the same examples.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.report.records import Record
from research.report.tables.cells import Cell, Table
from research.report.tables.scores import score_text

CAPTION = (
    "The main score of each task in per cent, mean ± standard deviation over runs: trained alone, with other tasks on "
    "one encoder, and after another task, from whose run it begins; untrained: with a new head."
)


def transfer_tables(records: Sequence[Record]) -> list[Table]:
    """The table, where runs of joint tasks differ in what they were trained with; none elsewhere."""
    cells: dict[str, dict[str, list[tuple[float, Path]]]] = {}  # how -> task -> scores
    known = {str(record.path.resolve()): record for record in records}
    for record in records:
        for how, task, score in _scores(record, _before(record, known)):
            cells.setdefault(how, {}).setdefault(task, []).append((score, record.path))
    tasks = list(dict.fromkeys(task for found in cells.values() for task in found))
    if len(cells) < 2:
        return []
    rows = []
    for how in sorted(cells, key=lambda how: (how != "alone", how)):
        row = [Cell(how)]
        for task in tasks:
            found = cells[how].get(task, [])
            values = np.array([score for score, _ in found])
            spread = float(values.std(ddof=1)) if len(values) > 1 else None
            runs = tuple(path for _, path in found)
            row.append(
                Cell(score_text(float(values.mean()), spread), float(values.mean()), runs) if found else Cell("–")
            )
        rows.append(row)
    return [Table("Transfer between tasks", ["trained", *tasks], rows, CAPTION)]


def _before(record: Record, known: Mapping[str, Record]) -> str:
    """What the run was trained on before: the tasks or the data of the run that it began from, or else that run's name;
    "" where it began from another model."""
    path = (record.provenance.get("parent") or {}).get("run")
    if path is None:
        return ""
    if path in known:
        return ", ".join(_trained(known[path]) or [known[path].data_set])
    folders = [part for part in Path(path).parts if not re.fullmatch(r"seed\d+", part)]
    return folders[-1]


def _scores(record: Record, before: str) -> list[tuple[str, str, float]]:
    """How a run of joint tasks trained each, the task with its score's name, and the score."""
    result = record.result or {}
    tasks: dict[str, dict[str, Any]] = result.get("tasks") or {}
    trained = _trained(record)
    scores = record.scores(record.reported_split)
    memory = ", ".join(record.config["task"].get("memory") or {})
    found = []
    for name in trained if tasks else ():
        others = ", ".join(other for other in trained if other != name)
        parts = {"with": others, "after": before, "with a memory of": memory}
        how = "; ".join(f"{word} {named}" for word, named in parts.items() if named) or "alone"
        how = "untrained" if result.get("steps") == 0 else how
        main = f"{name}.{tasks[name]['main']}"
        if main in scores:
            found.append((how, f"{name} {tasks[name]['main']} {record.reported_split}", scores[main]))
    return found


def _trained(record: Record) -> list[str]:
    """The tasks that a run of joint tasks trained."""
    return list(record.config["task"].get("train") or (record.result or {}).get("tasks") or ())
