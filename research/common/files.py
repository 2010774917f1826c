"""Write files and folders atomically: under a temporary name, flushed, then renamed."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from research.common.errors import UserError, as_os_error

TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")  # `.<name>.<process id>.tmp`


@contextmanager
def _write_errors_as_user_errors(path: Path) -> Iterator[None]:
    """Raises UserError in place of what the system says when `path` cannot be written."""
    try:
        yield
    except Exception as error:
        cause = as_os_error(error)
        if cause is None:
            raise
        raise UserError(f"{path} could not be written: {cause.strerror or cause}.") from cause


@contextmanager
def write_atomically(path: Path, secret: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside `path`; it becomes `path`, flushed to disk, when the block succeeds.

    A `secret` file is readable for its owner alone, from the first byte on.
    """
    temporary = temporary_name(path)
    try:
        with _write_errors_as_user_errors(path):
            if secret:
                temporary.touch(0o600)
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            if not secret:
                follow_umask(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """Where this process writes what becomes `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_temporaries(folder: Path, names: re.Pattern[str]) -> None:
    """Remove what killed writers of files with these names have left in `folder`; nothing else."""
    for path in folder.glob(".*.tmp"):
        found = TEMPORARY.fullmatch(path.name)
        if found is not None and names.fullmatch(found["name"]) and path.is_file():
            path.unlink(missing_ok=True)


def follow_umask(path: Path) -> None:
    """Give a file the mode that a plain `open` would have given it; some libraries write 0600."""
    mode = 0o666 & ~umask()
    if path.stat().st_mode & 0o777 != mode:
        path.chmod(mode)


def umask() -> int:
    """This process's umask, read without changing it for the other threads where the system shows it."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(re.findall(r"^Umask:\s*(\d+)", status, re.MULTILINE)[0], 8)
    except (OSError, IndexError):
        mask = os.umask(0o022)
        os.umask(mask)
        return mask


def short_path(path: Path) -> str:
    """A path as a person would type it: relative to the working directory, where there still is one."""
    try:
        return os.path.relpath(path)
    except (FileNotFoundError, ValueError):
        return str(path)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, None without the file. Raises UserError for one that is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object.")
    return content


def set_aside(path: Path) -> Path:
    """Rename a damaged file to a free name beside it, `<name>.damaged-<n>`. Returns the new path."""
    number = 1
    while (target := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    os.replace(path, target)
    return target


def replace_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Fill a new folder and put it in the place of `path`, which is removed. Raises UserError for a full disk."""
    new, old = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("new", "old"))
    for found in path.parent.glob(f".{path.name}.*"):
        if re.fullmatch(r"\.\d+\.(new|old)", found.name.removeprefix(f".{path.name}")):  # a killed process left it
            shutil.rmtree(found, ignore_errors=True)
    try:
        with _write_errors_as_user_errors(path):
            new.mkdir(parents=True)
            fill(new)
            for file in filter(Path.is_file, new.rglob("*")):
                follow_umask(file)
            if path.exists():
                os.replace(path, old)
            os.replace(new, path)
    finally:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
