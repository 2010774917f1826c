"""Columns of the data as the fields that a task reads: found by name, ids as text, label numbers as their names."""

import dataclasses
import difflib
import hashlib
import json
import logging
from collections.abc import Collection, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from research.common import compat
from research.common.errors import UserError
from research.common.text import free_name
from research.data.source import Split

log = logging.getLogger(__name__)


def has_column(split: Split, field: str, column: str, optional: Collection[str]) -> bool:
    columns = [known for known in split.rows.column_names if known != "__line__"]
    if column in columns:
        return True
    if field in optional:
        return False
    near = difflib.get_close_matches(column, columns, n=1)
    raise UserError(
        f"{split.origin}: no column '{column}' for the field '{field}'; the columns are "
        f"{', '.join(columns)}; map one with `data.columns.{field}: {near[0] if near else '<name>'}`"
        f"{_hint_of_format(split, field, column)}"
    )


def _hint_of_format(split: Split, field: str, column: str) -> str:
    """What else may be the cause of a missing column, by the file's format."""
    if split.format in ("csv", "tsv"):
        return (
            "; if the first line is no header, set `data.header: false` and name columns by number, as in "
            f"`data.columns.{field}: 1`"
        )
    if split.format == "conll" and field == "tags":
        return "; a CoNLL file's columns are chosen by number from 1, as in `data.columns: {tokens: 2, tags: 4}`"
    if split.format == "conll":
        first = split.rows[0]
        header = [first["tokens"][0], *first.get("tags", [])[:1]]
        if column in header:
            return (
                f"; the file was read as CoNLL columns, but its first line looks like the header of a table "
                f"({', '.join(header)}): set `data.format: tsv`"
            )
        return (
            "; the file was read as CoNLL columns, of words and tags: set `data.format` if it is another "
            "(csv, tsv, jsonl, or text for a text a line)"
        )
    return ""


def with_fields(split: Split, fields: Mapping[str, str]) -> Split:
    """`id`, the fields under their own names, then the other columns; label numbers as their names."""
    rows = split.rows
    id_column = fields.get("id", "id")
    sources = {"id": id_column if id_column in rows.column_names else "", **fields}
    others = [name for name in rows.column_names if name not in sources and name not in sources.values()]
    for field, column in sources.items():
        values = _changed(split, field, column)
        if values is None and list(sources.values()).count(column) > 1:
            values = split.column(column)
        if values is not None:
            step = json.dumps([compat.dataset_fingerprint(rows), split.name, field, column])
            sources[field] = f"__{field}__"
            fingerprint = hashlib.sha256(step.encode()).hexdigest()
            rows = rows.add_column(sources[field], values, new_fingerprint=fingerprint)
    rows = rows.select_columns([*sources.values(), *others])
    renamed = {column: field for field, column in sources.items() if column != field}
    return dataclasses.replace(split, rows=rows.rename_columns(renamed) if renamed else rows)


def _changed(split: Split, field: str, column: str) -> pa.ChunkedArray | None:
    """The values of a field that cannot be taken from the data as they are: ids and numbered labels."""
    import datasets

    if field == "id" and not column:
        ids = [f"{split.name}-{index}" for index in range(len(split.rows))]
        return pa.chunked_array([pa.array(ids, pa.string())])
    feature = split.rows.features[column]
    inner = getattr(feature, "feature", feature)  # of a list of labels
    if isinstance(inner, datasets.ClassLabel):
        return _label_names(split.column(column), inner.names)
    values_type = split.rows.data.schema.field(column).type
    if pa.types.is_large_string(values_type):
        return split.column(column).cast(pa.string())
    if pa.types.is_large_list(values_type) and pa.types.is_large_string(values_type.value_type):
        return split.column(column).cast(pa.list_(pa.string()))
    if field != "id" or pa.types.is_string(values_type):
        return None
    if not pa.types.is_integer(values_type):
        raise UserError(f"{split.origin}: the column '{column}' of ids holds {values_type}; ids are text or numbers")
    return split.column(column).cast(pa.string())


def _label_names(codes: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    """Label numbers, or lists of them, as names; -1, the hub's mark of an unlabelled row, as null."""

    def named(numbers: pa.Array) -> pa.Array:
        return pa.array(names, pa.string()).take(pc.if_else(pc.less(numbers, 0), None, numbers))

    def named_lists(lists: pa.Array) -> pa.Array:
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        offsets = pa.array([0, *lengths.cumsum()], pa.int32())
        return pa.ListArray.from_arrays(offsets, named(lists.flatten()), mask=lists.is_null())

    is_list = not pa.types.is_integer(codes.type)
    chunks = [named_lists(chunk) if is_list else named(chunk) for chunk in codes.chunks]
    return pa.chunked_array(chunks, pa.list_(pa.string()) if is_list else pa.string())


def set_aside(split: Split, field: str) -> Split:
    """The split without a field it does not need, whose column is kept as data of the user's own."""
    name = free_name(field, split.rows.column_names)
    log.warning("%s: '%s' does not hold what the task reads there; it is kept as '%s'", split.origin, field, name)
    return dataclasses.replace(split, rows=split.rows.rename_column(field, name))
