"""Tables as the page, the checklist and CSV files show them."""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from research.common.text import printable


@dataclass(frozen=True)
class Cell:
    """A shown value: `value` is what sorting goes by, `runs` are the run folders that a number comes from."""

    text: str
    value: float | None = None
    runs: tuple[Path, ...] = ()
    mark: Literal["", "best", "tied"] = ""  # tied: not significantly worse than the best

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", printable(self.text))


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def __post_init__(self) -> None:
        for name in ("title", "caption"):
            object.__setattr__(self, name, printable(getattr(self, name)))
        object.__setattr__(self, "columns", tuple(map(printable, self.columns)))

    @cached_property
    def numbers(self) -> list[bool]:
        """Which columns hold numbers, whatever their first cell."""
        return [any(row[i].value is not None for row in self.rows) for i in range(len(self.columns))]


def make_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "", decimals: int = 4
) -> Table:
    """A table of plain values: text, numbers, None, or cells."""
    return Table(title, columns, [[cell(value, decimals=decimals) for value in row] for row in rows], caption)


def cell(value: Any, runs: Iterable[Path] = (), decimals: int = 4) -> Cell:
    """A value as it is shown: integers with thousands separators, others with so many decimals."""
    if isinstance(value, Cell):
        return value
    if value is None or value != value:  # nothing, or NaN
        return Cell("")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(str(value), None, tuple(runs))
    text = f"{value:,}" if isinstance(value, int) else f"{value:z.{decimals}f}"
    return Cell(text, float(value), tuple(runs))


def per_cent(value: float | None, runs: Iterable[Path] = (), decimals: int = 1) -> Cell:
    """A fraction as it is shown everywhere: in per cent; its value, and CSV, stay the fraction."""
    if value is None or value != value:
        return Cell("")
    return Cell(f"{100 * value:z.{decimals}f}", float(value), tuple(runs))


def table_markdown(shown: Table) -> str:
    """A pipe table; what would break it or be read as HTML is escaped."""
    rows = [shown.columns, ["---"] * len(shown.columns), *([cell.text for cell in row] for row in shown.rows)]
    return "".join("| " + " | ".join(map(escaped, row)) + " |\n" for row in rows)


def write_table_csv(shown: Table, path: Path) -> None:
    """The table with numbers in full, not as they are shown."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(shown.columns)
        writer.writerows([[cell.text if cell.value is None else _number(cell.value) for cell in r] for r in shown.rows])


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def escaped(text: str) -> str:
    """Text for Markdown on one line: nothing in it is read as HTML or as the end of a cell."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def file_name(text: str) -> str:
    """A title as the name of a file: letters of any script, digits, hyphens."""
    return re.sub(r"[^\w.]+", "-", text.lower()).strip("-.") or "table"
