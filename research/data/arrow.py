"""Local files as memory-mapped tables in the cache of `datasets`, kept by the content of the file.

A builder of `datasets` and not `Dataset.from_generator`: the column types come from the whole file, read
only when it is not in the cache, and not from its first thousand rows.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from research.common.errors import UserError
from research.data.formats import Format, Row

PLACE = "__line__"  # our column: a row's 1-based line, item or question number in its file
BATCH_ROWS = 5_000


def load_file(path: str, sha256: str, format: Format | None) -> datasets.Dataset:
    """The rows of a local file; text formats get the column `__line__`, Parquet (`format` None) does not."""
    try:
        builder = _LocalFile(path, sha256, format)
        builder.download_and_prepare()
        return builder.as_dataset(split="train")
    except (datasets.exceptions.DatasetGenerationError, OSError, pa.ArrowException) as error:
        raise _for_people(error, path) from error


def _for_people(error: Exception, path: str) -> UserError:
    cause = error.__cause__ or error if isinstance(error, datasets.exceptions.DatasetsError) else error
    if isinstance(cause, UserError):
        return cause
    if isinstance(cause, OSError) and not isinstance(cause, pa.ArrowException):
        cache = datasets.config.HF_DATASETS_CACHE
        return UserError(
            f"{path}: the data cache {cache} cannot be written ({cause}); free space there or set "
            "HF_DATASETS_CACHE to a folder with space"
        )
    return UserError(f"{path}: cannot be read as {Path(path).suffix} ({str(cause).splitlines()[0]}); write it again")


class _LocalFile(datasets.ArrowBasedBuilder):
    VERSION = datasets.Version("1.0.0")  # part of the cache's name: raise it when a reader yields other rows

    def __init__(self, path: str, sha256: str, format: Format | None) -> None:
        self.path, self.format = path, format
        kind = format.name if format else "parquet"
        super().__init__(dataset_name="research_file", config_id=f"{kind}-{sha256}")

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo()

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        if self.format is None:
            self.info.features = datasets.Features.from_arrow_schema(pq.read_schema(self.path))
        elif self.format.name == "squad":
            self.info.features = datasets.Features(_SQUAD)
        else:
            self.info.features = infer_features(row for _, row in self.format.read(self.path))
        return [datasets.SplitGenerator(name="train")]

    def _generate_tables(self) -> Iterator[tuple[int, pa.Table]]:
        batches = self._parquet_batches() if self.format is None else self._text_batches(self.format)
        count = 0
        for count, batch in enumerate(batches, 1):
            yield count, batch
        if not count:  # an empty table could be written but not opened again
            raise UserError(f"{self.path}: holds no {self.format.place if self.format else 'row'}s; give at least one")

    def _parquet_batches(self) -> Iterator[pa.Table]:
        schema = self.info.features.arrow_schema
        for batch in pq.ParquetFile(self.path).iter_batches(BATCH_ROWS):
            yield pa.Table.from_batches([batch]).cast(schema)

    def _text_batches(self, format: Format) -> Iterator[pa.Table]:
        features = self.info.features
        as_json = [name for name, feature in features.items() if isinstance(feature, datasets.Json)]
        rows = format.read(self.path)
        while batch := list(itertools.islice(rows, BATCH_ROWS)):
            records = [{**row, PLACE: place} for place, row in batch]
            for record, name in itertools.product(records, as_json):
                if record.get(name) is not None:
                    record[name] = json.dumps(record[name], ensure_ascii=False)
            yield pa.Table.from_pylist(records, schema=features.arrow_schema)


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


def _kind_of(value: Any) -> Kind:
    if isinstance(value, dict):
        return ("struct", {key: _kind_of(item) for key, item in value.items()}) if value else "json"
    if isinstance(value, list):
        return ("list", reduce(_merge, map(_kind_of, value), None))
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
