"""What the labels of a data set mean, where its experiment describes them (`data.label_descriptions`)."""

from __future__ import annotations

from collections.abc import Sequence

from research.report.records import Record
from research.report.tables.cells import Cell, Table


def label_tables(records: Sequence[Record]) -> list[Table]:
    """A table for each data set whose runs describe their labels."""
    found: dict[str, dict[str, str]] = {}
    for record in records:
        described = ((record.result or {}).get("learned") or {}).get("descriptions") or {}
        if described:
            found.setdefault(record.data_set, {}).update(described)
    return [
        Table(f"Labels of {data_set}", ["label", "meaning"], [[Cell(label), Cell(text)] for label, text in of.items()])
        for data_set, of in found.items()
    ]
