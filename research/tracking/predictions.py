"""The predictions file: one row per example with its id, the gold answer, the prediction and the data's own columns.

Scores are computed from these rows alone, by the metric that the file names. Nothing here needs torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from research.common.errors import UserError
from research.common.files import write_atomically
from research.common.text import free_name
from research.metrics import metric_of

if TYPE_CHECKING:
    from research.data.source import Split
    from research.metrics.base import BaseMetric

KEY = b"research"


def make_table(split: Split, columns: dict[str, list[Any]], metric: str, settings: dict[str, Any]) -> pa.Table:
    """`id`, the task's columns, then those of the data; the table's metadata say how to score them.

    A column of the data whose name is one of the task's is kept as `data_<name>`.
    """
    names = [name for name in split.rows.column_names if name not in ("id", "__line__")]
    data = split.rows.select_columns(["id", *names]).with_format("arrow")[:]
    table = {"id": data.column("id"), **columns}
    for name in names:
        table[free_name(name, {*table, *names}) if name in table or name == "gold" else name] = data.column(name)
    table = pa.table(table)
    return table.replace_schema_metadata({KEY: json.dumps({"scorer": metric, **settings}).encode()})


def write(table: pa.Table, path: Path) -> None:
    with write_atomically(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read(path: Path) -> pa.Table:
    return pq.read_table(path)


def settings(table: pa.Table) -> dict[str, Any]:
    """The metric's name (`scorer`) and what it needs beside the rows."""
    content: dict[str, Any] = json.loads(table.schema.metadata[KEY])
    return content


def metric(table: pa.Table, own_files: bool = False) -> BaseMetric:
    """The metric that the table names. Raises UserError where there is no such metric here.

    With `own_files` it may be named by the path of a user's file, whose code then runs.
    """
    return metric_of(settings(table), own_files)


def known_metric(table: pa.Table) -> BaseMetric | None:
    """The metric that the table names; None where there is no such metric here."""
    try:
        return metric(table)
    except UserError:
        return None


def score(table: pa.Table, own_files: bool = False) -> dict[str, float]:
    """The scores of a predictions table."""
    return metric(table, own_files).score(table)
