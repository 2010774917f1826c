"""The label set of a task: declared in the experiment, or collected over all splits."""

import difflib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from research.common.errors import UserError
from research.data.source import Split


def collect_labels(splits: Sequence[Split], field: str, declared: Sequence[str] | None) -> list[str]:
    """The labels of `field`, or all its tags where it holds lists: as `declared`, else collected and sorted.

    Splits without the field and null labels are passed over. Labels that are all whole numbers are sorted
    as numbers. Raises UserError at the first row with an undeclared or empty label, or without any label.
    """
    found: set[str] = set()
    for split in splits:
        if field in split.rows.column_names:
            values = _label_texts(split, field)
            labels = set(pc.unique(_flat(values)).drop_null().to_pylist())
            _refuse(split, field, values, labels, declared)
            found |= labels
    if declared is not None:
        return list(declared)
    if not found:
        raise UserError(f"no split has a value in '{field}'; check the column or declare the labels")
    whole_numbers = all(label.removeprefix("-").isdecimal() for label in found)
    return sorted(found, key=(lambda label: (int(label), label)) if whole_numbers else None)


def label_text(value: str | int | bool) -> str:
    """A label as text: 3 is "3", true is "true"."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _label_texts(split: Split, field: str) -> pa.ChunkedArray:
    """The column (text, or lists of text) with whole numbers and true/false as `label_text` writes them."""
    values = split.column(field)
    is_list = hasattr(values.type, "value_type")
    kind = values.type.value_type if is_list else values.type
    if pa.types.is_string(kind):
        return values
    if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"{split.origin}: '{field}' holds {kind}; labels are text, whole numbers or true/false")
    return values.cast(pa.list_(pa.string()) if is_list else pa.string())


def _flat(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values if pa.types.is_string(values.type) else pc.list_flatten(values)


def _refuse(
    split: Split, field: str, values: pa.ChunkedArray, labels: set[str], declared: Sequence[str] | None
) -> None:
    """UserError at the first row that has an empty label or one that is not declared."""
    bad = labels - set(declared) if declared is not None else labels & {""}
    if not bad:
        return
    row, label = _first(values, bad)
    if declared is None:
        raise UserError(f"{split.where(row)}: '{field}' has an empty label; give it one or take the row out")
    near = difflib.get_close_matches(label, declared, n=1)
    guess = f" (did you mean '{near[0]}'?)" if near else ""
    shown = ", ".join(declared[:20]) + (", ..." if len(declared) > 20 else "")
    raise UserError(
        f"{split.where(row)}: the label '{label}' of '{field}' is not declared{guess}; "
        f"declared are {shown}: mend the row or declare the label"
    )


def _first(values: pa.ChunkedArray, bad: set[str]) -> tuple[int, str]:
    for row, value in enumerate(values):
        for label in [value.as_py()] if pa.types.is_string(values.type) else value.as_py() or []:
            if label in bad:
                return row, label
    raise AssertionError("a label found in the column must stand in a row")
