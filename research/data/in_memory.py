"""Rows from memory as files in the data cache, named by their content, which a run then reads like others.

So the content is in the config and in provenance, ranks of their own read it too, and a run is not resumed on other
rows. Where the cache was emptied, the same call writes the file again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from research.common.errors import UserError
from research.common.files import write_atomically

SPLITS = ("train", "validation", "test")
CACHE_FOLDER = "research_in_memory"


def with_stored_rows(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of `data`, or of `data.train` and the like, that are rows replaced by the path of a file of them.

    Rows are dicts in a list or another iterable, a `datasets.Dataset`, a torch `Dataset` of dicts or a pandas
    `DataFrame`. Raises UserError for rows that are no dicts, that JSON cannot hold, and for none.
    """
    dotted = {f"data.{name}": name for name in SPLITS if not _is_plain(values.get(f"data.{name}"))}
    given = values.get("data", {})
    if not isinstance(given, Mapping) or not (given or dotted):
        return dict(values)
    data = {**given, **{name: values[key] for key, name in dotted.items()}}
    values = {key: value for key, value in values.items() if key not in dotted}
    rows = {name: data[name] for name in SPLITS if not _is_plain(data.get(name))}
    contents = {name: json_lines(name, each) for name, each in rows.items()}
    digest = hashlib.sha256(b"".join(contents[name] for name in sorted(contents))).hexdigest()
    stored = {name: _stored(name, content, digest) for name, content in contents.items()}
    return {**values, "data": {**data, **stored}}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | Path | int | float)


def json_lines(split: str, rows: Any) -> bytes:
    """The rows as JSON lines, the keys of each in order."""
    lines = []
    for i, row in enumerate(_rows(rows)):
        if not isinstance(row, Mapping):
            kind = type(row).__name__
            raise UserError(f"data.{split}, row {i}: is a {kind}; give a dict with the task's columns.")
        try:
            lines.append(json.dumps(row, sort_keys=True, ensure_ascii=False, default=_plain) + "\n")
        except (TypeError, ValueError) as error:
            raise UserError(f"data.{split}, row {i}: {error}; give text, numbers, lists and dicts.") from None
    if not lines:
        raise UserError(f"data.{split} holds no rows; give at least one.")
    return "".join(lines).encode("utf-8", "surrogatepass")


def _rows(rows: Any) -> Iterable[Any]:
    if hasattr(rows, "features") and hasattr(rows, "with_format"):
        return _hub_rows(rows)
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # a DataFrame, whose gaps are NaN
        plain: Iterable[Any] = rows.astype(object).where(rows.notna(), None).to_dict("records")
        return plain
    if hasattr(rows, "__getitem__") and hasattr(rows, "__len__") and not isinstance(rows, Mapping):
        return (rows[i] for i in range(len(rows)))
    if isinstance(rows, Iterable) and not isinstance(rows, Mapping):
        return rows
    raise UserError(f"Rows come as a list of dicts or a data set of them, not as {type(rows).__name__}.")


def _hub_rows(rows: Any) -> Iterator[dict[str, Any]]:
    """Rows of a `datasets.Dataset`, the numbers of its labels as their names; -1, the mark of no label, as null."""
    found = {column: getattr(getattr(f, "feature", f), "names", None) for column, f in rows.features.items()}
    names: dict[str, list[str]] = {column: each for column, each in found.items() if each}
    for row in rows.with_format(None):
        yield {column: _named(value, names[column]) if column in names else value for column, value in row.items()}


def _named(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    return None if value is None or value < 0 else names[value]


def _plain(value: Any) -> Any:
    """numpy's and torch's values as Python's."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__} cannot be stored")


def _stored(split: str, content: bytes, digest: str) -> str:
    from datasets import config

    path = Path(config.HF_DATASETS_CACHE) / CACHE_FOLDER / digest[:16] / f"{split}.jsonl"
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as temporary:
            temporary.write_bytes(content)
    return str(path)
