"""Read the labels of texts that have any number of them, in the forms people write them."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from research.common import compat
from research.common.errors import UserError
from research.data.labels import label_text
from research.data.source import Split

OPENING = ("[", "('", '("', "{'", '{"')  # of a list in text: JSON's, Python's, or NumPy's, whose items have no comma
_NO_COMMA = re.compile(r"""(?<=['"])\s+(?=['"])""")
SEPARATORS = (";", "|", ",")


def separator_of(splits: Iterable[Split]) -> str | None:
    """What separates labels in text: the first of SEPARATORS that a label of the splits holds; None where none does."""
    labelled = [split for split in splits if "label" in split.rows.column_names]
    texts = [value for split in labelled for value in split.rows["label"][:] if is_plain_text(value)]
    return next((each for each in SEPARATORS if any(each in text for text in texts)), None)


def is_plain_text(value: Any) -> bool:
    """A text that is no list written out."""
    return isinstance(value, str) and not value.lstrip().startswith(OPENING)


def read_label_sets(split: Split, separator: str | None) -> Split:
    """The split with `label` as lists of text: from lists, lists written as text, or text with a separator.

    An empty text is no label; null is unlabelled. Raises UserError for anything else.
    """
    if "label" not in split.rows.column_names:
        return split
    given = split.rows["label"][:]
    sets = [_label_set(split, row, value, separator) for row, value in enumerate(given)]
    step = json.dumps([compat.dataset_fingerprint(split.rows), "label sets", separator])
    rows = split.rows.remove_columns("label").add_column(
        "label", pa.array(sets, pa.list_(pa.string())), new_fingerprint=hashlib.sha256(step.encode()).hexdigest()
    )
    return dataclasses.replace(split, rows=rows)


def _label_set(split: Split, row: int, value: Any, separator: str | None) -> list[str] | None:
    if value is None:
        return None
    if is_plain_text(value):
        value = value.split(separator) if separator else [value]
    elif isinstance(value, str):
        value = _written_list(value, f"{split.where(row)}: the label")
    elif isinstance(value, int):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(label, str | int) for label in value):
        raise UserError(f'{split.where(row)}: the label {value!r} is no list of labels; write ["a", "b"] or a;b')
    names = [label_text(label).strip() for label in value]
    return list(dict.fromkeys(name for name in names if name))


def _written_list(text: str, what: str) -> list[Any]:
    """A list, tuple or set of labels that is written as text. Raises UserError for another text."""
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = ast.literal_eval(_NO_COMMA.sub(", ", text.strip()))
        except (ValueError, SyntaxError, TypeError):
            found = None
    if not isinstance(found, list | tuple | set):
        raise UserError(f'{what} {text!r} is no list; write ["a", "b"] or a;b')
    return sorted(found, key=str) if isinstance(found, set) else list(found)
