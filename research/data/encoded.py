"""Encoded splits in the cache of `datasets`, kept by everything that encoding depends on.

The key of a split names its rows, the settings, and the source code that encodes: after a change in any file that
`encode` may import, the split is encoded again.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from research.common.errors import UserError
from research.common.files import write_atomically

if TYPE_CHECKING:
    import datasets

log = logging.getLogger("research")
MOST_ROWS_AT_ONCE, BYTES_AT_ONCE = 1_000, 1_000_000
PACKAGE = Path(__file__).resolve().parent.parent
SOURCES = (
    "tasks",
    "metrics",
    "data",
    "batching/store.py",
    "training/datamodule.py",
)  # what `encode` may import of ours


def encoded(
    rows: datasets.Dataset, encode: Callable[..., Any], key: Sequence[Any], description: str
) -> datasets.Dataset:
    """The rows through `encode`, or what an earlier call with the same `key` has kept.

    A cache file that is no longer what was written, by the checksum beside it, is made again. Raises UserError where
    the cache cannot be written.
    """
    fingerprint = hashlib.sha256(json.dumps(key, default=str).encode()).hexdigest()
    at_once = rows_at_once(rows)
    settings = {
        "batched": True, "batch_size": at_once, "writer_batch_size": at_once,
        "remove_columns": rows.column_names, "new_fingerprint": fingerprint[:32],
    }  # fmt: skip
    try:
        found = rows.map(encode, desc=description, **settings)
        if all(_is_intact(Path(file["filename"])) for file in found.cache_files):
            return found
        log.warning("%s: the file in the data cache is damaged; it is made again.", description)
        for file in found.cache_files:
            _checksum_file(Path(file["filename"])).unlink(missing_ok=True)
        found = rows.map(encode, desc=description, load_from_cache_file=False, **settings)
        for file in found.cache_files:
            _is_intact(Path(file["filename"]))  # writes the new checksum
        return found
    except OSError as error:
        raise UserError(
            f"{description}: the result cannot be kept in the data cache ({error.strerror or error}); "
            "free space there or set HF_DATASETS_CACHE to a folder with space."
        ) from None


def rows_at_once(rows: datasets.Dataset) -> int:
    """How many rows are encoded together: fewer of long ones, as 170 bytes are needed for each character of them."""
    size_bytes = rows.data.nbytes / max(len(rows.data), 1)
    return max(1, min(MOST_ROWS_AT_ONCE, int(BYTES_AT_ONCE / max(size_bytes, 1))))


def _is_intact(path: Path) -> bool:
    """Is a cache file what its checksum says? The checksum of a new file is written beside it."""
    beside = _checksum_file(path)
    with open(path, "rb") as file:
        checksum = hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
    if not beside.is_file():
        with suppress(OSError, UserError), write_atomically(beside) as temporary:  # a cache that is only read
            temporary.write_text(checksum)
        return True
    return beside.read_text() == checksum


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.xxh3")


def source_digest(task_data: type) -> str:
    """Of the code that encodes a task: ours, and for a user's task all Python files beside it."""
    files = {Path(inspect.getfile(cls)).resolve() for cls in task_data.__mro__ if _is_of_user(cls)}
    beside = {path for file in files for path in file.parent.glob("*.py")}
    return _digest(tuple(sorted({*_ours(), *beside})))


def _is_of_user(cls: type) -> bool:
    """Is a class defined in a file that is neither ours nor of an installed package?"""
    try:
        file = Path(inspect.getfile(cls)).resolve()
    except (TypeError, OSError):
        return False
    return PACKAGE not in file.parents and not {"site-packages", "dist-packages"} & {*file.parts}


def _ours() -> Iterator[Path]:
    for source in SOURCES:
        path = PACKAGE / source
        yield from path.glob("*.py") if path.is_dir() else [path]


@cache
def _digest(files: tuple[Path, ...]) -> str:
    """Of the files as they are when they are first asked for, once a process: as they were imported."""
    digest = xxhash.xxh3_128()
    for file in files:
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return digest.hexdigest()
