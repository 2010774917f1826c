"""Small text helpers."""

from __future__ import annotations

import re
from collections.abc import Collection

# Control characters but tab, line feed and carriage return; marks that override the direction of text.
_STEERING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_PER_CENT = re.compile(r"(?<=\d) %")


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def counted(count: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def signed(value: float, decimals: int) -> str:
    """`+1.20`, `-0.31`, and `0.00` for what rounds to zero."""
    text = f"{value:z.{decimals}f}"
    return f"+{text}" if float(text) > 0 else text


def unbroken(text: str) -> str:
    """`80 %` with a blank at which no line ends."""
    return _PER_CENT.sub("\u00a0%", text)


def free_name(name: str, taken: Collection[str]) -> str:
    """A name for a column of the data whose own name is taken: `data_<name>`, lengthened until it is free."""
    name = f"data_{name.strip('_')}"
    while name in taken:
        name += "_"
    return name


def printable(text: str) -> str:
    """Text without what would steer a terminal or turn its direction; tabs and line ends stay."""
    return _STEERING.sub("", text)
