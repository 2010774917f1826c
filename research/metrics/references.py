"""The reference texts of a predictions table: one text an example, or a list of them."""

from __future__ import annotations

import pyarrow as pa


def references(table: pa.Table) -> list[list[str]]:
    """The references of each example. Raises ValueError where one has none."""
    found = [[gold] if isinstance(gold, str) else list(gold or ()) for gold in table.column("gold").to_pylist()]
    bare = next((i for i, texts in enumerate(found) if not texts), None)
    if bare is not None:
        raise ValueError(f"example {table.column('id')[bare].as_py()!r} has no reference to score its output with")
    return found


def outputs(table: pa.Table) -> list[str]:
    """The generated texts."""
    return [text or "" for text in table.column("prediction").to_pylist()]
