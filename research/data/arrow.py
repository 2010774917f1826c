"""Local files as memory-mapped tables in the cache of `datasets`, kept by the content of the file.

A builder of `datasets` and not `Dataset.from_generator`: the column types come from all of the file, read
only when it is not in the cache, and not from its first thousand rows.
"""

import hashlib
import itertools
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from functools import cache, reduce
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from research.common.errors import UserError
from research.common.text import free_name
from research.data.formats import BY_NAME, Format, Reading, Row

log = logging.getLogger("research")
PLACE = "__line__"  # our column: a row's 1-based line, item or question number in its file
BATCH_ROWS = 5_000
NAME = "research_file"  # of the folder in the data cache
DEEPEST = 20  # levels of nested values that get column types


def load_file(path: str, sha256: str, format: Format, reading: Reading = BY_NAME) -> datasets.Dataset:
    """The rows of a local file; text formats get the column `__line__`, Parquet does not.

    A column of the file that is named `__line__` itself becomes `data_line`.
    """
    kept = _cache_folder(path, sha256, format, reading) / f"{NAME}-train.arrow"
    if kept.is_file() and not os.access(kept.parent, os.W_OK):  # a builder would make a lock file
        return datasets.Dataset.from_file(str(kept))
    _remove_if_damaged(kept.parent)
    try:
        builder = _LocalFile(path, sha256, format, reading)
        builder.download_and_prepare()
        return builder.as_dataset(split="train")
    except (datasets.exceptions.DatasetGenerationError, OSError, pa.ArrowException) as error:
        raise _for_people(error, path, format) from error


def _config_id(path: str, sha256: str, format: Format, reading: Reading) -> str:
    key = (format.name, reading, path.lower().endswith(".tsv"), _readers())
    return f"{format.name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}-{sha256}"


def _cache_folder(path: str, sha256: str, format: Format, reading: Reading) -> Path:
    """Where `datasets` keeps the rows of a file."""
    name = _config_id(path, sha256, format, reading)
    return Path(datasets.config.HF_DATASETS_CACHE) / NAME / name / str(_LocalFile.VERSION)


def _remove_if_damaged(folder: Path) -> None:
    """Remove a cache folder whose description of the rows is damaged: they are read from the file again."""
    description = folder / "dataset_info.json"
    try:
        if not description.is_file() or isinstance(json.loads(description.read_bytes()), dict):
            return
    except ValueError:
        pass
    log.warning("%s is damaged: the data file is read again", description)
    shutil.rmtree(folder, ignore_errors=True)


def _for_people(error: Exception, path: str, format: Format) -> UserError:
    cause = error.__cause__ or error if isinstance(error, datasets.exceptions.DatasetsError) else error
    if isinstance(cause, UserError):
        return cause
    if isinstance(cause, OSError) and not isinstance(cause, pa.ArrowException):
        cache = datasets.config.HF_DATASETS_CACHE
        return UserError(
            f"{path}: the data cache {cache} cannot be written ({cause}); free space there or set "
            "HF_DATASETS_CACHE to a folder with space"
        )
    said = (str(cause) or type(cause).__name__).splitlines()[0]
    return UserError(f"{path}: cannot be read as .{format.name} ({said}); write it again")


class _LocalFile(datasets.ArrowBasedBuilder):
    VERSION = datasets.Version("2.0.0")

    def __init__(self, path: str, sha256: str, format: Format, reading: Reading) -> None:
        self.path, self.format, self.reading = path, format, reading
        super().__init__(dataset_name=NAME, config_id=_config_id(path, sha256, format, reading))

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo()

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        if self.format.read is None:
            self.info.features = parquet_features(pq.read_schema(self.path))
        elif self.format.name == "squad":
            self.info.features = datasets.Features(_SQUAD)
        else:
            self.info.features = infer_features(row for _, row in self._rows())
        return [datasets.SplitGenerator(name="train")]

    def _generate_tables(self) -> Iterator[tuple[int, pa.Table]]:
        batches = self._parquet_batches() if self.format.read is None else self._text_batches()
        count = 0
        for count, batch in enumerate(batches, 1):
            yield count, batch
        if not count:  # an empty table could be written but not opened again
            raise UserError(f"{self.path}: holds no {self.format.place}s; give at least one")

    def _parquet_batches(self) -> Iterator[pa.Table]:
        schema = self.info.features.arrow_schema
        for batch in pq.ParquetFile(self.path).iter_batches(BATCH_ROWS):
            columns = [_as_type(column, field.type) for column, field in zip(batch.columns, schema, strict=True)]
            yield pa.Table.from_arrays(columns, schema=schema)

    def _rows(self) -> Iterator[tuple[int, Row]]:
        assert self.format.read is not None
        for place, row in self.format.read(self.path, self.reading):
            yield place, {free_name(PLACE, row) if name == PLACE else name: value for name, value in row.items()}

    def _text_batches(self) -> Iterator[pa.Table]:
        features = self.info.features
        as_json = [name for name, feature in features.items() if isinstance(feature, datasets.Json)]
        rows = self._rows()
        while batch := list(itertools.islice(rows, BATCH_ROWS)):
            records = [{**row, PLACE: place} for place, row in batch]
            for record, name in itertools.product(records, as_json):
                if record.get(name) is not None:
                    record[name] = json.dumps(record[name], ensure_ascii=False)
            yield pa.Table.from_pylist(records, schema=features.arrow_schema)


@cache
def _readers() -> str:
    """A digest of the code that reads files: what it read before is not found again by other code."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def parquet_features(schema: pa.Schema) -> datasets.Features:
    """The columns of a Parquet file under one type of each kind: text, lists and bytes however they are laid out.

    Types that `datasets` does not know (maps, intervals, unions) become text.
    """
    if b"huggingface" in (schema.metadata or {}):
        return datasets.Features.from_arrow_schema(schema)
    return datasets.Features.from_arrow_schema(pa.schema([(field.name, _plain(field.type)) for field in schema]))


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    if any(test(kind) for test in _LISTS):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _plain(field.type)) for field in kind])
    if pa.types.is_decimal(kind) and not pa.types.is_decimal256(kind):
        return pa.decimal128(kind.precision, kind.scale)
    try:
        datasets.Features.from_arrow_schema(pa.schema([("column", kind)]))
    except (ValueError, NotImplementedError, KeyError):
        return pa.string()
    return kind


_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view,
          pa.types.is_large_list_view)  # fmt: skip


def _as_type(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        values = column.to_pylist()
        is_text = pa.types.is_string(kind)
        return pa.array([None if v is None else str(v) for v in values] if is_text else values, kind)


_SQUAD = {
    PLACE: datasets.Value("int64"),
    "id": datasets.Value("string"),
    "title": datasets.Value("string"),
    "context": datasets.Value("string"),
    "question": datasets.Value("string"),
    "answers": {
        "text": datasets.List(datasets.Value("string")),
        "answer_start": datasets.List(datasets.Value("int32")),
    },
    "is_impossible": datasets.Value("bool"),
}


# A kind is None (only nulls so far), the name of a scalar type, ("list", kind), ("struct", {name: kind}),
# or "json": values of no common type, kept as they are.
Kind = str | tuple[str, Any] | None


def infer_features(rows: Iterable[Row]) -> datasets.Features:
    """The column types that hold every value of `rows` unchanged, `__line__` first."""
    kinds: dict[str, Kind] = {}
    for row in rows:
        for name, value in row.items():
            known = kinds.setdefault(name, None)
            if not (type(value) is str and known == "string"):
                kinds[name] = _merge(known, _kind_of(value))
    columns = {name: datasets.Json() if _is_json(kind) else _feature(kind) for name, kind in kinds.items()}
    return datasets.Features({PLACE: datasets.Value("int64"), **columns})


def _kind_of(value: Any, depth: int = 0) -> Kind:
    if depth > DEEPEST and isinstance(value, dict | list):
        return "json"
    if isinstance(value, dict):
        return ("struct", {key: _kind_of(item, depth + 1) for key, item in value.items()}) if value else "json"
    if isinstance(value, list):
        return ("list", reduce(_merge, (_kind_of(item, depth + 1) for item in value), None))
    if isinstance(value, int) and not isinstance(value, bool):
        return "int64" if -(2**63) <= value < 2**63 else "json"
    return {str: "string", bool: "bool", float: "float64"}.get(type(value))


def _merge(a: Kind, b: Kind) -> Kind:
    if a == b or b is None:
        return a
    if a is None:
        return b
    if {str(a), str(b)} == {"int64", "float64"}:
        return "float64"
    if isinstance(a, tuple) and isinstance(b, tuple) and a[0] == b[0]:
        if a[0] == "list":
            return ("list", _merge(a[1], b[1]))
        if a[1].keys() == b[1].keys():
            return ("struct", {key: _merge(a[1][key], b[1][key]) for key in a[1]})
    return "json"


def _is_json(kind: Kind) -> bool:
    if isinstance(kind, tuple):
        return any(map(_is_json, kind[1].values())) if kind[0] == "struct" else _is_json(kind[1])
    return kind == "json"


def _feature(kind: Kind) -> Any:
    if isinstance(kind, tuple):
        inner = kind[1]
        return {k: _feature(v) for k, v in inner.items()} if kind[0] == "struct" else datasets.List(_feature(inner))
    return datasets.Value(kind or "string")
