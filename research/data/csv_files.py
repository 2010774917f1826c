"""Reader of CSV and TSV files as people have them: any usual separator, with or without a header and quotes."""

from __future__ import annotations

import csv
import itertools
import re
import sys
from collections.abc import Iterator
from typing import Any

from research.common.errors import UserError
from research.data.lines import BY_NAME, Reading, read_lines

SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a TAB", "|": "a bar"}
_QUOTING: dict[str, dict[str, Any]] = {
    "double": {"strict": True},
    "none": {"quoting": csv.QUOTE_NONE},
    "backslash": {"strict": True, "doublequote": False, "escapechar": "\\"},
}
_SAMPLE_LINES = 50
_KNOWN_VALUES = 1000  # of a column, remembered to recognise swallowed rows
_EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


def read_csv(path: str, reading: Reading = BY_NAME) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of text under a header row; a row's place is its first line.

    A `.csv` file is separated by what its first line is (comma, semicolon, TAB, bar), a `.tsv` file by TABs. A
    double quote encloses a cell in the first and is a character like others in the second; `reading.quoting` says
    otherwise. Without a header the columns are named by their numbers from 1; a column without a name gets
    `column_<number>`.
    """
    csv.field_size_limit(sys.maxsize)  # the module's default refuses a text of 128 KiB
    tabs = path.lower().endswith(".tsv") if reading.format is None else reading.format == "tsv"
    quoting = _QUOTING["none" if tabs else "double"] if reading.quoting == "auto" else _QUOTING[reading.quoting]
    skipped, separator = _separator(path, reading, quoting, tabs)
    raw: list[str] = []  # the physical lines of the row being read
    lines = itertools.islice(read_lines(path, reading.encoding), skipped, None)
    reader = csv.reader((raw.append(line) or line for _, line in lines), delimiter=separator, **quoting)  # type: ignore[func-returns-value]
    swallowed = _Swallowed(path, separator)
    names: list[str] = []
    number = 1 + skipped
    try:
        for cells in reader:
            if cells and not names:
                names = _header(cells, path, number) if reading.header else [str(i + 1) for i in range(len(cells))]
                cells = [] if reading.header else cells
            if cells:
                row = _row(cells, names, f"{path}, line {number}", separator)
                swallowed.add(number, cells, raw)
                yield number, row
            number = reader.line_num + 1 + skipped
            raw.clear()
    except csv.Error as error:
        raise UserError(_quoting_fault(f"{path}, line {number}", error, raw)) from None
    swallowed.refuse()


def _row(cells: list[str], names: list[str], where: str, separator: str) -> dict[str, str]:
    if len(cells) > len(names) and not any(cells[len(names) :]):
        cells = cells[: len(names)]  # separators at the end of a line, as spreadsheets write them
    if len(cells) != len(names):
        name = SEPARATORS.get(separator, f"'{separator}'")
        raise UserError(
            f"{where}: {len(cells)} cells where the header has {len(names)}; put a text that holds {name} in double "
            "quotes (and in a .tsv file set `data.quoting: double`), or name another separator by `data.separator`"
        )
    return dict(zip(names, cells, strict=True))


def _header(cells: list[str], path: str, number: int) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}, line {number}: the header names the column '{twice}' twice; rename one")
    for i, name in enumerate(names):
        if not name:
            names[i] = next(f for k in itertools.count() if (f := f"column_{i + 1}" + "_" * k) not in names)
    return names


def _separator(path: str, reading: Reading, quoting: dict[str, Any], tabs: bool) -> tuple[int, str]:
    """How many lines come before the header, and what separates the cells."""
    sample = [line for _, line in itertools.islice(read_lines(path, reading.encoding), _SAMPLE_LINES)]
    said = _EXCEL_SEPARATOR.fullmatch(sample[0]) if sample else None
    if reading.separator is not None or tabs:
        return (1 if said else 0), reading.separator or "\t"
    if said:
        return 1, said[1]
    candidates: dict[str, bool] = {}
    for separator in SEPARATORS:
        rows = csv.reader(sample, delimiter=separator, **{**quoting, "strict": False})
        widths = [len(cells) for cells in rows if cells]
        if widths and widths[0] > 1:
            candidates[separator] = len(set(widths[: -1 if len(sample) == _SAMPLE_LINES else None])) == 1
    even = [separator for separator, is_even in candidates.items() if is_even]
    return 0, (even or [*candidates, ","])[0]


def _quoting_fault(where: str, error: csv.Error, raw: list[str]) -> str:
    if any('\\"' in line for line in raw):
        return f'{where}: bad quoting ({error}); quotes are written \\" here: set `data.quoting: backslash`'
    return (
        f"{where}: bad quoting ({error}); put a text that holds a double quote in double quotes and double those "
        'within: "the ""best"" film"; where quotes enclose nothing in this file, set `data.quoting: none`'
    )


class _Swallowed:
    """Rows that a quote at a cell's start has swallowed: the lines within the cell look like rows of their own.

    A text of several lines with separators in it is distinguished by the values: each line of an accident has as
    many cells as a row, and of those within the quotes one is a value that other rows have in the same column.
    """

    def __init__(self, path: str, separator: str) -> None:
        self.path, self.separator = path, separator
        self.known: list[set[str]] = []
        self.suspects: list[tuple[int, int, list[tuple[int, str]]]] = []  # place, lines, (column, cell) in the quotes

    def add(self, number: int, cells: list[str], raw: list[str]) -> None:
        if not self.known:
            self.known = [set() for _ in cells]
        lines = [line.rstrip("\r\n").split(self.separator) for line in raw if line.strip()]
        quoted = next(
            (i for i, cell in enumerate(cells) if self.separator in cell and len(cell.splitlines()) > 1), None
        )
        if quoted is not None and all(len(line) == len(cells) for line in lines):
            within = [*enumerate(lines[0])][quoted + 1 :] + [*enumerate(lines[-1])][:quoted]
            within += [place for line in lines[1:-1] for place in enumerate(line)]
            self.suspects.append((number, len(lines), within))
        elif len(lines) == 1:
            for seen, cell in zip(self.known, cells, strict=False):
                if len(seen) < _KNOWN_VALUES and 0 < len(cell) < 40:
                    seen.add(cell)

    def refuse(self) -> None:
        for number, count, within in self.suspects:
            if any(cell in self.known[i] for i, cell in within):
                raise UserError(
                    f"{self.path}, line {number}: a double quote at a cell's start takes in the next "
                    f"{count - 1} lines, which look like rows; set `data.quoting: none` if quotes are plain "
                    'characters here, or double them within quoted cells: "the ""best"" film"'
                )
