"""A report's folder, written completely or not at all; the rest of a paper in it is not touched."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from research.common.errors import UserError, as_os_error

SCRATCH = ".report.tmp"


@contextmanager
def written_report(folder: Path, earlier: Mapping[str, str]) -> Iterator[Path]:
    """A scratch folder inside `folder` whose files take their places when the block ends without an error.

    `earlier`: file -> sha256 of the report that stood there; its files that the new one lacks are removed unless they
    were edited. Raises UserError for a folder or disk that cannot be written; `folder` then is as it was, absent
    where it was not there.
    """
    scratch = folder / SCRATCH
    absent = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        shutil.rmtree(scratch, ignore_errors=True)  # of a report that was killed
        scratch.mkdir(parents=True)
        yield scratch
        _take_places(scratch, folder, earlier)
    except (OSError, UserError) as error:
        cause = as_os_error(error)
        if cause is None:
            raise
        reason = cause.strerror or str(cause)
        raise UserError(f"--output {folder} cannot be written: {reason}. Nothing in it was changed.") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with suppress(OSError):  # they hold the report, or another's file
            for made in absent:
                made.rmdir()


def _take_places(scratch: Path, folder: Path, earlier: Mapping[str, str]) -> None:
    """Move every file to its place, then remove the files of the earlier report that no longer belong to it."""
    made = [path.relative_to(scratch) for path in sorted(scratch.rglob("*")) if path.is_file()]
    for name in made:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch / name, folder / name)
    for old, digest in earlier.items():
        path = folder / old
        if Path(old) not in made and path.is_file() and sha256(path) == digest:
            path.unlink()


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
