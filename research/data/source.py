"""One split of a data set, from a local file or the hub, as memory-mapped rows that know where they stand."""

import dataclasses
import difflib
import hashlib
import json
import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from research.common import compat
from research.common.errors import UserError
from research.common.text import free_name
from research.data.formats import BY_NAME, SUFFIXES, Reading, format_of, has_known_suffix, kind_name, refuse_unknown
from research.data.parallel_files import joint_sha256, parallel_files

if TYPE_CHECKING:
    import datasets

log = logging.getLogger(__name__)


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

    def where(self, index: int) -> str:
        """Where a row stands: 'data/train.jsonl, line 17' or 'stanfordnlp/sst2 (train), row 16'."""
        if self.place == "question":
            return f"{self.origin}, question {self.rows[index]['id']}"
        return f"{self.origin}, {self.place} {self.number(index)}"

    def number(self, index: int) -> int:
        """The row's line, item or question in its file, from 1; else its index, from 0."""
        return self.rows[index]["__line__"] if self.lines else index

    def column(self, name: str) -> pa.ChunkedArray:
        """All of a column, memory-mapped."""
        return self.rows.with_format("arrow", columns=[name])[:].column(name)


def open_split(
    *,
    name: str,
    value: str,
    hub_name: str | None,
    hub_config: str | None,
    hub_revision: str | None,
    fields: Mapping[str, str],
    optional: Collection[str] = (),
    limit: int | None = None,
    reading: Reading = BY_NAME,
    free: Collection[str] = (),
    aligned: Sequence[str] = (),
) -> Split:
    """Open `value`: a local file, or a split expression (`train[:90%]`) of the data set `hub_name`.

    `fields` maps each field the task needs to its column in the data; those in `optional` may be absent
    or hold nulls, those in `free` hold values of any shape, those in `aligned` lists of equal lengths.
    `hub_name` may be a local folder in the hub's format.
    A file may be sliced like a split of the hub: `train.csv[:80%]`. The first `limit` rows are taken.
    Raises UserError saying what is wrong, where, and how to correct it.
    """
    file, rows_asked = sliced(value)
    if hub_name is None or has_known_suffix(file) or os.path.isfile(file):
        split = _open_file(name, file, reading)
        if rows_asked:
            split = _slice(split, rows_asked)
    else:
        from research.data.hub import load_hub

        rows = load_hub(hub_name, hub_config, value, hub_revision)
        key = "\n".join(map(str, (hub_name, hub_config, hub_revision, value, compat.dataset_fingerprint(rows))))
        sha256 = hashlib.sha256(key.encode()).hexdigest()
        split = Split(name=name, rows=rows, origin=f"{hub_name} ({value})", lines=False, fingerprint=sha256)
    if len(split.rows) == 0:
        raise UserError(f"{split.origin}: holds no {split.place}s; give at least one")
    if limit is not None:
        split = dataclasses.replace(split, rows=split.rows.select(range(min(limit, len(split.rows)))))
    if split.format == "conll":  # its reader has chosen the columns
        fields = {field: field if field in split.rows.column_names else column for field, column in fields.items()}
    fields = {field: column for field, column in fields.items() if _has_column(split, field, column, optional)}
    split = _with_fields(split, fields)
    for field in fields:
        _check_values(split, field, field in optional, field in free)
    if name != "input":  # nothing is paired by the ids of new text
        _check_ids(split)
    if aligned and set(aligned) <= set(fields) and name != "input":
        _check_aligned(split, aligned)
    return split


def set_aside(split: Split, field: str) -> Split:
    """The split without a field it does not need, whose column is kept as data of the user's own."""
    name = free_name(field, split.rows.column_names)
    log.warning("%s: '%s' does not hold what the task reads there; it is kept as '%s'", split.origin, field, name)
    return dataclasses.replace(split, rows=split.rows.rename_column(field, name))


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file, or of a pair of parallel ones. UserError if one is missing, a folder or not readable."""
    pair = parallel_files(str(path))
    if pair and not os.path.exists(path):
        return joint_sha256([file_sha256(file) for file in pair])
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


def _slice(split: Split, asked: str) -> Split:
    """Rows `from:to` of a file, in rows or per cent of them."""
    count = len(split.rows)
    ends = [round(count * int(end[:-1]) / 100) if end.endswith("%") else int(end or 0) for end in asked.split(":")]
    chosen = range(count)[slice(ends[0], ends[1] if asked.split(":")[1] else None)]
    if not chosen:
        raise UserError(f"{split.origin}[{asked}]: holds no {split.place}s of the {count} there are")
    fingerprint = hashlib.sha256(f"{split.fingerprint}[{asked}]".encode()).hexdigest()
    return dataclasses.replace(split, rows=split.rows.select(chosen), fingerprint=fingerprint)


def _open_file(name: str, path: str, reading: Reading) -> Split:
    sha256 = file_sha256(path)
    if reading.format is None:
        refuse_unknown(path, "--input" if name == "input" else f"data.{name}")
    files = (path,) if os.path.exists(path) else parallel_files(path) or (path,)
    if any(os.path.getsize(file) == 0 for file in files):
        raise UserError(f"{path}: is empty; give a file with at least one row")
    from research.data.arrow import load_file

    format = format_of(path, reading)
    rows = load_file(path, sha256, format, reading)
    lines = format.read is not None
    return Split(
        name=name, rows=rows, origin=path, lines=lines, fingerprint=sha256, place=format.place, format=format.name
    )


def missing_file(path: Path) -> str:
    """What to say of a file that is not there: the nearest name, or where it was looked for."""
    folder = path.parent
    if not folder.is_dir():
        return f"{path}: no such file, and no folder {folder}; check the path (from {Path.cwd()})"
    near = difflib.get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=3, cutoff=0.5)
    guess = f"did you mean {' or '.join(near)}?" if near else f"check the path (from {Path.cwd()})"
    hint = "" if has_known_suffix(str(path)) else "; for a split of a hub data set give `data.name` too"
    return f"{path}: no such file; {guess}{hint}"


# --- columns ------------------------------------------------------------------------------------------


def _has_column(split: Split, field: str, column: str, optional: Collection[str]) -> bool:
    columns = [known for known in split.rows.column_names if known != "__line__"]
    if column in columns:
        return True
    if field in optional:
        return False
    near = difflib.get_close_matches(column, columns, n=1)
    raise UserError(
        f"{split.origin}: no column '{column}' for the field '{field}'; the columns are "
        f"{', '.join(columns)}; map one with `data.columns.{field}: {near[0] if near else '<name>'}`"
        f"{_hint_of_format(split, field)}"
    )


def _hint_of_format(split: Split, field: str) -> str:
    """What else may be the cause of a missing column, by the file's format."""
    if split.format in ("csv", "tsv"):
        return (
            "; if the first line is no header, set `data.header: false` and name columns by number, as in "
            f"`data.columns.{field}: 1`"
        )
    if split.format == "conll" and field == "tags":
        return "; a CoNLL file's columns are chosen by number from 1, as in `data.columns: {tokens: 2, tags: 4}`"
    if split.format == "conll":
        return (
            "; the file was read as CoNLL columns, of words and tags: set `data.format` if it is another "
            "(csv, tsv, jsonl, or text for a text a line)"
        )
    return ""


def _with_fields(split: Split, fields: Mapping[str, str]) -> Split:
    """`id`, the fields under their own names, then the other columns; label numbers as their names."""
    rows = split.rows
    id_column = fields.get("id", "id")
    sources = {"id": id_column if id_column in rows.column_names else "", **fields}
    others = [name for name in rows.column_names if name not in sources and name not in sources.values()]
    for field, column in sources.items():
        values = _changed(split, field, column)
        if values is None and list(sources.values()).count(column) > 1:
            values = split.column(column)
        if values is not None:
            step = json.dumps([compat.dataset_fingerprint(rows), split.name, field, column])
            sources[field] = f"__{field}__"
            fingerprint = hashlib.sha256(step.encode()).hexdigest()
            rows = rows.add_column(sources[field], values, new_fingerprint=fingerprint)
    rows = rows.select_columns([*sources.values(), *others])
    renamed = {column: field for field, column in sources.items() if column != field}
    return dataclasses.replace(split, rows=rows.rename_columns(renamed) if renamed else rows)


def _changed(split: Split, field: str, column: str) -> pa.ChunkedArray | None:
    """The values of a field that cannot be taken from the data as they are: ids and numbered labels."""
    import datasets

    if field == "id" and not column:
        ids = [f"{split.name}-{index}" for index in range(len(split.rows))]
        return pa.chunked_array([pa.array(ids, pa.string())])
    feature = split.rows.features[column]
    inner = getattr(feature, "feature", feature)  # of a list of labels
    if isinstance(inner, datasets.ClassLabel):
        return _label_names(split.column(column), inner.names)
    values_type = split.rows.data.schema.field(column).type
    if pa.types.is_large_string(values_type):
        return split.column(column).cast(pa.string())
    if pa.types.is_large_list(values_type) and pa.types.is_large_string(values_type.value_type):
        return split.column(column).cast(pa.list_(pa.string()))
    if field != "id" or pa.types.is_string(values_type):
        return None
    if not pa.types.is_integer(values_type):
        raise UserError(f"{split.origin}: the column '{column}' of ids holds {values_type}; ids are text or numbers")
    return split.column(column).cast(pa.string())


def _label_names(codes: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    """Label numbers, or lists of them, as names; -1, the hub's mark of an unlabelled row, as null."""

    def named(numbers: pa.Array) -> pa.Array:
        return pa.array(names, pa.string()).take(pc.if_else(pc.less(numbers, 0), None, numbers))

    def named_lists(lists: pa.Array) -> pa.Array:
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        offsets = pa.array([0, *lengths.cumsum()], pa.int32())
        return pa.ListArray.from_arrays(offsets, named(lists.flatten()), mask=lists.is_null())

    is_list = not pa.types.is_integer(codes.type)
    chunks = [named_lists(chunk) if is_list else named(chunk) for chunk in codes.chunks]
    return pa.chunked_array(chunks, pa.list_(pa.string()) if is_list else pa.string())


# --- values -------------------------------------------------------------------------------------------


def _check_values(split: Split, field: str, may_be_null: bool, is_free: bool) -> None:
    import datasets

    if is_free:
        return
    if isinstance(split.rows.features[field], datasets.Json):
        raise UserError(_mixed(split, field))
    values = split.column(field)
    if values.null_count and not may_be_null:
        index = pc.index(values.is_null(), True).as_py()
        raise UserError(f"{split.where(index)}: '{field}' is null or missing; give it a value or take the row out")
    if isinstance(split.rows.features[field], datasets.List) and pc.list_flatten(values).null_count:
        index = next(i for i, row in enumerate(values) if row.is_valid and None in row.as_py())
        raise UserError(f"{split.where(index)}: '{field}' has a null in its list; give it a value")


def _mixed(split: Split, field: str) -> str:
    """What to say of a field whose values have no common type."""
    kinds = ((index, kind_name(row[field])) for index, row in enumerate(split.rows) if row[field] is not None)
    first, kind = next(kinds)
    other = next(((index, found) for index, found in kinds if found != kind), None)
    if other is None:
        return f"{split.origin}: '{field}' holds {kind} of another shape from row to row; give all rows the same"
    index, found = other
    return f"{split.where(index)}: '{field}' holds {found} but {kind} in {split.where(first)}; use one kind"


def _check_ids(split: Split) -> None:
    ids = split.column("id")
    if ids.null_count:
        index = pc.index(ids.is_null(), True).as_py()
        raise UserError(f"{split.where(index)}: 'id' is null or missing; give every row an id, or none")
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    seen: dict[str, int] = {}
    for index, row_id in enumerate(ids.to_pylist()):
        first = seen.setdefault(row_id, index)
        if first != index:
            places = f"{split.place} {split.number(first)} and {split.place} {split.number(index)}"
            raise UserError(f"{split.origin}: the id '{row_id}' occurs in {places}; ids must be unique")


def _check_aligned(split: Split, fields: Sequence[str]) -> None:
    """UserError at the first row whose `fields` are not lists of the same length."""
    import datasets

    for field in fields:
        if not isinstance(split.rows.features[field], datasets.List | datasets.LargeList):
            kind = split.rows.data.schema.field(field).type
            raise UserError(f'{split.origin}: \'{field}\' holds {kind}, not lists; write ["New", "York", ...]')
    lengths = {field: pc.list_value_length(split.column(field)) for field in fields}
    first, *others = fields
    for other in others:
        index = pc.index(pc.not_equal(lengths[first], lengths[other]), True).as_py()
        if index >= 0:
            counts = f"{lengths[first][index]} {first} but {lengths[other][index]} {other}"
            raise UserError(f"{split.where(index)}: {counts}; give both as many")
