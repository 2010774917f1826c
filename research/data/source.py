"""One split of a data set as memory-mapped rows that know their place, and the local file it is read from."""

import dataclasses
import difflib
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from research.common.errors import UserError
from research.data.formats import SUFFIXES, Reading, format_of, has_known_suffix, refuse_unknown
from research.data.parallel_files import joint_sha256, parallel_files
from research.data.slot_files import slot_files

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Split:
    """Rows of one split: `id` (unique text), the fields the task asked for, the data's other columns."""

    name: str  # "train" | "validation" | "test" | "input"
    rows: "datasets.Dataset"
    origin: str  # the file path, or "hub-name (split)"
    lines: bool  # rows carry `__line__`, their 1-based place in a local text file
    fingerprint: str  # sha256 of the local file, or of what names the hub's rows
    place: str = "row"  # what a place counts: "line", "item", "question" or (from 0) "row"
    format: str = "hub"  # or the name of a local file's format
    drawn: str = ""  # how these rows were chosen among those of the origin
    taken: range | None = None  # the rows of a local file that were asked for; None: the hub's

    def where(self, index: int) -> str:
        """The place of a row: 'data/train.jsonl, line 17' or 'stanfordnlp/sst2 (train), row 16'."""
        if self.place == "question":
            return f"{self.origin}, question {self.rows[index]['id']}"
        return f"{self.origin}, {self.place} {self.number(index)}"

    def number(self, index: int) -> int:
        """The row's line, item or question in its file, from 1; else its index, from 0."""
        return self.rows[index]["__line__"] if self.lines else index

    def column(self, name: str) -> pa.ChunkedArray:
        """All of a column, memory-mapped."""
        return self.rows.with_format("arrow", columns=[name])[:].column(name)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file, or of several that belong together. UserError if one is missing or not readable."""
    several = slot_files(str(path)) or (None if os.path.exists(path) else parallel_files(str(path)))
    if several:
        return joint_sha256([file_sha256(file) for file in several])
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(missing_file(Path(path))) from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name one file in it ({', '.join(SUFFIXES)})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the file's permissions") from None


def sliced(value: str) -> tuple[str, str]:
    """`train.csv[:80%]` as ("train.csv", ":80%"); other names with an empty slice."""
    found = re.fullmatch(r"(.+)\[(-?\d*%?:-?\d*%?)\]", value)
    return (found[1], found[2]) if found and not os.path.exists(value) else (value, "")


def slice_rows(split: Split, asked: str) -> Split:
    """Rows `from:to` of a file, in rows or per cent of them."""
    count = len(split.rows)
    ends = [round(count * int(end[:-1]) / 100) if end.endswith("%") else int(end or 0) for end in asked.split(":")]
    chosen = range(count)[slice(ends[0], ends[1] if asked.split(":")[1] else None)]
    if not chosen:
        raise UserError(f"{split.origin}[{asked}]: holds no {split.place}s of the {count} there are")
    fingerprint = hashlib.sha256(f"{split.fingerprint}[{asked}]".encode()).hexdigest()
    return dataclasses.replace(split, rows=split.rows.select(chosen), fingerprint=fingerprint, taken=chosen)


def open_file(name: str, path: str, reading: Reading) -> Split:
    sha256 = file_sha256(path)
    if reading.format is None:
        refuse_unknown(path, "--input" if name == "input" else f"data.{name}")
    files = slot_files(path) or (None if os.path.exists(path) else parallel_files(path)) or (path,)
    if any(os.path.getsize(file) == 0 for file in files):
        raise UserError(f"{path}: is empty; give a file with at least one row")
    from research.data.arrow import load_file

    format = format_of(path, reading)
    rows = load_file(path, sha256, format, reading)
    lines = format.read is not None
    return Split(
        name=name, rows=rows, origin=path, lines=lines, fingerprint=sha256, place=format.place, format=format.name,
        taken=range(len(rows)),
    )  # fmt: skip


def missing_file(path: Path) -> str:
    """What to say of a file that is not there: the nearest name, or where it was looked for."""
    folder = path.parent
    if not folder.is_dir():
        return f"{path}: no such file, and no folder {folder}; check the path (from {Path.cwd()})"
    near = difflib.get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=3, cutoff=0.5)
    guess = f"did you mean {' or '.join(near)}?" if near else f"check the path (from {Path.cwd()})"
    hint = "" if has_known_suffix(str(path)) else "; for a split of a hub data set give `data.name` too"
    return f"{path}: no such file; {guess}{hint}"
