"""The label set of a task: declared in the experiment, or collected over all splits, and what is odd about it."""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from research.common.errors import UserError
from research.data.source import Split

log = logging.getLogger(__name__)

_MOST_NAMED = 10  # labels that a warning names


def collect_labels(splits: Sequence[Split], field: str, declared: Sequence[str] | None) -> list[str]:
    """The labels of `field`, or all its tags where it holds lists: as `declared`, else collected and sorted.

    Splits without the field and null labels are passed over. Labels that are all integers are sorted
    as numbers. Labels that differ only in blanks, case or a final `.0`, and those without a training example, are
    logged. Raises UserError at the first row with an undeclared or empty label, or without any label.
    """
    counts: dict[str, Counter[str]] = {}
    for split in splits:
        if field in split.rows.column_names:
            values = _label_texts(split, field)
            counts[split.name] = _counted(values)
            _refuse(split, field, values, set(counts[split.name]), declared)
    for sentence in oddities(counts, declared or ()):
        log.warning("%s", sentence)
    if declared is not None:
        return list(declared)
    found = set[str]().union(*counts.values())
    if not found:
        raise UserError(f"no split has a value in '{field}'; check the column or declare the labels")
    whole_numbers = all(label.removeprefix("-").isdecimal() for label in found)
    return sorted(found, key=(lambda label: (int(label), label)) if whole_numbers else None)


def label_text(value: str | int | bool) -> str:
    """A label as text: 3 is "3", true is "true"."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def gold_labels(split: Split, field: str = "label") -> list[str | None]:
    """The label of each row as text, None where it has none."""
    rows = split.rows
    values = rows[field] if field in rows.column_names else [None] * len(rows)
    return [None if value is None else label_text(value) for value in values]


def refuse_other_labels(split: Split, field: str, labels: Sequence[str]) -> None:
    """Raise UserError at the first row with a label that a run has not learned."""
    known = set(labels)
    values = split.rows[field] if field in split.rows.column_names else ()
    for row, value in enumerate(values):
        for label in map(label_text, value if isinstance(value, list) else [value]):
            if label not in known:
                raise not_of_the_run(split, row, label, labels)


def not_of_the_run(split: Split, row: int, label: str, known: Iterable[str]) -> UserError:
    """The error for a label of new data."""
    return UserError(
        f"{split.where(row)}: '{label}' is none of the run's labels, {', '.join(sorted(known)[:20])}; "
        "correct it, or take the row out."
    )


def oddities(counts: Mapping[str, Mapping[str, int]], declared: Sequence[str] = ()) -> list[str]:
    """Sentences on labels that are probably one class written in several ways, and on those training never shows.

    `counts`: split -> label -> examples.
    """
    total: Counter[str] = Counter()
    for counted in counts.values():
        total.update(counted)
    sentences = []
    alike: dict[str, list[str]] = {}
    for label in sorted(total):
        alike.setdefault(_written_plainly(label), []).append(label)
    for labels in alike.values():
        if len(labels) > 1:
            named = ", ".join(f"'{label}' ({total[label]:,})" for label in labels)
            sentences.append(f"the labels {named} differ only in blanks, case or '.0' and are classes of their own")
    blank = [label for labels in alike.values() if len(labels) == 1 for label in labels if label != label.strip()]
    if blank:
        sentences.append(f"labels begin or end with blanks: {_named(blank)}")
    if "train" in counts:
        never = [label for label in dict.fromkeys([*declared, *sorted(total)]) if not counts["train"].get(label)]
        if never:
            sentences.append(f"no training example has the label {_named(never)}")
    return sentences


def _written_plainly(label: str) -> str:
    return " ".join(label.split()).casefold().removesuffix(".0")


def _named(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _MOST_NAMED} more" if len(labels) > _MOST_NAMED else ""
    return ", ".join(f"'{label}'" for label in labels[:_MOST_NAMED]) + more


def _counted(values: pa.ChunkedArray) -> Counter[str]:
    counted = pc.value_counts(_flat(values).drop_null()).to_pylist()
    return Counter({cell["values"]: cell["counts"] for cell in counted})


def _label_texts(split: Split, field: str) -> pa.ChunkedArray:
    """The column (text, or lists of text) with integers and true/false as `label_text` writes them."""
    values = split.column(field)
    is_list = hasattr(values.type, "value_type")
    kind = values.type.value_type if is_list else values.type
    if pa.types.is_string(kind):
        return values
    if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"{split.origin}: '{field}' holds {kind}; labels are text, integers or true/false")
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
        f"declared are {shown}: correct the row or declare the label"
    )


def _first(values: pa.ChunkedArray, bad: set[str]) -> tuple[int, str]:
    for row, value in enumerate(values):
        for label in [value.as_py()] if pa.types.is_string(values.type) else value.as_py() or []:
            if label in bad:
                return row, label
    raise AssertionError("a label found in the column must be in a row")
