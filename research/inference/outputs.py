"""Write labelled rows as JSONL, CSV or Parquet, whatever types the user's own columns have."""

from __future__ import annotations

import base64
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from research.common.errors import UserError
from research.common.files import write_atomically
from research.common.text import free_name
from research.tracking import predictions

SUFFIXES = (".jsonl", ".parquet", ".csv")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def writer_of(target: str, labels: Sequence[str], escape_formulas: bool) -> Callable[[pa.Table], None]:
    """What writes a table to `target`, by its suffix; `-` is JSONL on standard output.

    Raises UserError for another suffix, and for a folder that cannot be made.
    """
    path = Path(target)
    if target == "-":
        return lambda table: sys.stdout.writelines(json_lines(table, labels))
    if path.suffix not in SUFFIXES:
        raise UserError(f"--output {target}: its suffix must be one of {', '.join(SUFFIXES)}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {target} could not be written: {error.strerror or error}.") from None
    if path.suffix == ".jsonl":
        return lambda table: write_jsonl(table, path, labels)
    if path.suffix == ".csv":
        return lambda table: write_csv(table, path, labels, escape_formulas)
    return lambda table: predictions.write(table, path)


def write_jsonl(table: pa.Table, path: Path, labels: Sequence[str] = ()) -> None:
    """One JSON object a row: dates as ISO text, decimals and bytes as text, a number that is none as null."""
    with write_atomically(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(json_lines(table, labels))


def json_lines(table: pa.Table, labels: Sequence[str]) -> list[str]:
    """Rows as JSON; probabilities by class, as the service answers them."""
    rows = table.to_pylist()
    for row in rows:
        if labels and isinstance(values := row.get("probabilities"), list):
            row["probabilities"] = dict(zip(class_names(labels, len(values)), values, strict=True))
    return [as_json(row) + "\n" for row in rows]


def class_names(labels: Sequence[str], count: int) -> list[str]:
    """The labels, then numbers for classes that have none."""
    return [*labels, *map(str, range(len(labels), count))]


def as_json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=as_text)
    except ValueError:  # NaN and infinity are no JSON
        return json.dumps(_finite(value), ensure_ascii=False, default=as_text)


def as_text(value: Any) -> str:
    """A value that JSON has no type for: dates and times in ISO 8601, bytes as UTF-8 or else base64."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    return str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_csv(table: pa.Table, path: Path, labels: Sequence[str], escape_formulas: bool) -> None:
    """A column for each class's probability, lists and objects as JSON text, no control characters.

    `escape_formulas` puts a ' before a cell that a spreadsheet would compute.
    """
    flat: dict[str, Any] = {}
    for name in table.column_names:
        column = table.column(name)
        if name == "probabilities" and labels and len(table):
            flat |= _by_class(column, labels, table.column_names)
        else:
            flat[_cell(name, escape_formulas)] = _flat(column, escape_formulas)
    with write_atomically(path) as temporary:
        pa_csv.write_csv(pa.table(flat), temporary)


def _by_class(column: pa.ChunkedArray, labels: Sequence[str], taken: Sequence[str]) -> dict[str, Any]:
    rows = column.to_pylist()
    columns = [f"probability_{_cell(name, False)}" for name in class_names(labels, len(rows[0]))]
    columns = [free_name(name, taken) if name in taken else name for name in columns]
    return {name: pa.array([row[i] for row in rows]) for i, name in enumerate(columns)}


def _flat(column: pa.ChunkedArray, escape_formulas: bool) -> Any:
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return column
    if pa.types.is_floating(kind):
        return pa.array([_finite(value) for value in column.to_pylist()], pa.float64())
    nested = pa.types.is_nested(kind)
    values = column.to_pylist()
    texts = [None if v is None else as_json(v) if nested else v if isinstance(v, str) else as_text(v) for v in values]
    return pa.array([None if text is None else _cell(text, escape_formulas) for text in texts], pa.string())


def _cell(text: str, escape_formulas: bool) -> str:
    text = _CONTROL.sub("", text)
    return f"'{text}" if escape_formulas and text.startswith(_FORMULA) else text
