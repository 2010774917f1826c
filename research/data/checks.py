"""Checks of the values in a split: nulls, mixed types, equal ids, lists of unequal lengths, other values than text."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from research.common.errors import UserError
from research.data.formats import kind_name
from research.data.source import Split


def check_values(split: Split, field: str, may_be_null: bool, is_free: bool) -> None:
    import datasets

    if is_free:
        return
    if isinstance(split.rows.features[field], datasets.Json):
        raise UserError(_mixed(split, field))
    values = split.column(field)
    if values.null_count and not may_be_null:
        index = pc.index(values.is_null(), True).as_py()
        raise UserError(f"{split.where(index)}: '{field}' is null or missing; give it a value or take the row out")
    if isinstance(split.rows.features[field], datasets.List) and pc.list_flatten(values).null_count:
        index = next(i for i, row in enumerate(values) if row.is_valid and None in row.as_py())
        raise UserError(f"{split.where(index)}: '{field}' has a null in its list; give it a value")


def _mixed(split: Split, field: str) -> str:
    """What to say of a field whose values have no common type."""
    kinds = ((index, kind_name(row[field])) for index, row in enumerate(split.rows) if row[field] is not None)
    first, kind = next(kinds)
    other = next(((index, found) for index, found in kinds if found != kind), None)
    if other is None:
        return f"{split.origin}: '{field}' holds {kind} of another shape from row to row; give all rows the same"
    index, found = other
    return f"{split.where(index)}: '{field}' holds {found} but {kind} in {split.where(first)}; use one kind"


def check_ids(split: Split) -> None:
    ids = split.column("id")
    if ids.null_count:
        index = pc.index(ids.is_null(), True).as_py()
        raise UserError(f"{split.where(index)}: 'id' is null or missing; give every row an id, or none")
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    seen: dict[str, int] = {}
    for index, row_id in enumerate(ids.to_pylist()):
        first = seen.setdefault(row_id, index)
        if first != index:
            places = f"{split.place} {split.number(first)} and {split.place} {split.number(index)}"
            raise UserError(f"{split.origin}: the id '{row_id}' occurs in {places}; ids must be unique")


def check_aligned(split: Split, fields: Sequence[str]) -> None:
    """UserError at the first row whose `fields` are not lists of the same length."""
    import datasets

    for field in fields:
        if not isinstance(split.rows.features[field], datasets.List | datasets.LargeList):
            kind = split.rows.data.schema.field(field).type
            raise UserError(f'{split.origin}: \'{field}\' holds {kind}, not lists; write ["New", "York", ...]')
    lengths = {field: pc.list_value_length(split.column(field)) for field in fields}
    first, *others = fields
    for other in others:
        index = pc.index(pc.not_equal(lengths[first], lengths[other]), True).as_py()
        if index >= 0:
            counts = f"{lengths[first][index]} {first} but {lengths[other][index]} {other}"
            raise UserError(f"{split.where(index)}: {counts}; give both as many")


def refuse_other_than_text(split: Split, field: str, listed: bool) -> None:
    """Raise UserError unless a column holds text, or `listed` lists of it."""
    kind = split.column(field).type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    inner = kind.value_type if is_list else kind
    is_text = pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_null(inner)
    if not is_text or is_list is not listed:
        wanted = 'lists of text, as in ["New", "York"]' if listed else "text, in quotes"
        raise UserError(f"{split.origin}: '{field}' holds {kind}; write {wanted}.")
