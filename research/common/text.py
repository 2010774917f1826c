"""Small text helpers."""

from __future__ import annotations

from collections.abc import Collection


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def free_name(name: str, taken: Collection[str]) -> str:
    """A name for a column of the data whose own name is taken: `data_<name>`, lengthened until it is free."""
    name = f"data_{name.strip('_')}"
    while name in taken:
        name += "_"
    return name
