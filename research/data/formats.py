"""The formats of local files: what a file is read with, by `data.format` or by its suffix and first characters.

Every reader yields (place, row), the place a 1-based line, item or question number. It streams where the format
allows it, keeps values as the file has them (no text becomes a number, a date or a null), and raises UserError
naming the file and the line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from research.common.errors import UserError
from research.config.schema import CONLL_SUFFIXES, FORMATS
from research.config.schema import DATA_SUFFIXES as SUFFIXES
from research.data.conll import read_conll
from research.data.csv_files import read_csv
from research.data.json_files import Row, Rows, kind_name, read_json, read_jsonl, shape_of
from research.data.lines import BY_NAME, Reading, read_lines
from research.data.parallel_files import parallel_files, read_parallel
from research.data.semeval_files import read_semeval
from research.data.slot_files import read_slots, slot_files
from research.data.squad_files import read_squad

__all__ = ["BY_NAME", "FORMATS", "SUFFIXES", "Format", "Reading", "Row", "format_of", "has_known_suffix", "kind_name"]


@dataclass(frozen=True)
class Format:
    """What one kind of file is read with, and what its places count."""

    name: str
    place: str  # "line", "item" (of a JSON array) or "question" (of a SQuAD file)
    read: Callable[..., Rows] | None  # None: Parquet, which is read as it is


def format_of(path: str, reading: Reading = BY_NAME) -> Format:
    """The format of a file: `reading.format`, else by its suffix; a `.json` file by its first characters."""
    if slot_files(path):
        return Format("slots", "line", read_slots)
    if parallel_files(path) and not Path(path).exists():
        return Format("parallel", "line", read_parallel)
    suffix = Path(path).suffix.lower()
    by_suffix = "conll" if suffix in CONLL_SUFFIXES else suffix.removeprefix(".")
    name = reading.format or (reading.plain if suffix == ".txt" else by_suffix)
    if name == "json":
        shape = shape_of(path, reading)
        if shape == "squad" and reading.format is None:
            return Format("squad", "question", read_squad)
        return Format("json", "line" if shape == "objects" else "item", read_json)
    if name == "squad":
        return Format("squad", "question", read_squad)
    if name == "parquet":
        return Format("parquet", "row", None)
    readers: dict[str, Callable[..., Rows]] = {
        "jsonl": read_jsonl, "csv": read_csv, "tsv": read_csv, "conll": read_conll, "semeval": read_semeval,
        "text": read_text, "documents": read_documents,
    }  # fmt: skip
    return Format(name, "line", readers[name])


def read_text(path: str, reading: Reading = BY_NAME) -> Rows:
    """A text a line, as {"text": line}; blank lines are skipped."""
    for number, line in read_lines(path, reading.encoding):
        if line.strip():
            yield number, {"text": line.rstrip("\r\n")}


def read_documents(path: str, reading: Reading = BY_NAME) -> Rows:
    """Texts with blank lines between them, as {"text": lines}; the place is that of the first line."""
    first, lines = 0, list[str]()
    for number, line in read_lines(path, reading.encoding):
        if line.strip():
            first = first if lines else number
            lines.append(line.rstrip("\r\n"))
        elif lines:
            yield first, {"text": "\n".join(lines)}
            lines = []
    if lines:
        yield first, {"text": "\n".join(lines)}


def has_known_suffix(path: str) -> bool:
    """Whether the name of the file says how to read it."""
    return Path(path).suffix.lower() in SUFFIXES or bool(parallel_files(path) or slot_files(path))


def refuse_unknown(path: str, said: str) -> None:
    """Raise UserError for a file of a kind that its name does not tell."""
    if not has_known_suffix(path):
        raise UserError(
            f"{path}: unknown kind of file; {said} takes {', '.join(SUFFIXES)}, and others where `data.format` says "
            f"which of {', '.join(FORMATS)} they are"
        )
