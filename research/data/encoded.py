"""Encoded splits in the cache of `datasets`, kept by everything that encoding depends on.

The key of a split names its rows, the settings, and the source code that encodes: after a change in any file that
`encode` may import, the split is encoded again.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import xxhash

from research.common.errors import UserError

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

    Raises UserError where the cache cannot be written.
    """
    fingerprint = hashlib.sha256(json.dumps(key, default=str).encode()).hexdigest()
    try:
        return rows.map(
            encode,
            batched=True,
            remove_columns=rows.column_names,
            new_fingerprint=fingerprint[:32],
            desc=description,
        )
    except OSError as error:
        raise UserError(
            f"{description}: the result cannot be kept in the data cache ({error.strerror or error}); "
            "free space there or set HF_DATASETS_CACHE to a folder with space."
        ) from None


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
    whole = xxhash.xxh3_128()
    for file in files:
        whole.update(f"{file.name}\n".encode() + file.read_bytes())
    return whole.hexdigest()
