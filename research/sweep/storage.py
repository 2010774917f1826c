"""Storage of a study: a journal file, PostgreSQL, or SQLite for a single worker; calls are retried until it answers.

The journal is one JSON object a line, safe on NFS by a lock file that is taken from a dead holder after a while. A
line cut off by a full disk or a power failure is removed under that lock before anything is written behind it; what
was cut is kept beside the journal.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

import optuna
import sqlalchemy.exc
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.engine import make_url

from research.cluster.signals import Interrupted
from research.common import compat
from research.common.console import console
from research.common.errors import UserError
from research.common.locks import try_lock
from research.common.text import one_line
from research.sweep.sweepfile import StorageConfig

T = TypeVar("T")
UNREACHABLE = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, OSError)
LONGEST_PAUSE_SECONDS = 5.0
HICCUP_SECONDS = 0.5  # not worth a message: a connection made again, tables that another worker has just made


class StorageLost(UserError):
    """The storage did not answer for as long as the sweep file says to wait."""


class Patience:
    """Calls a storage again until it answers; says so, and gives up after `wait_seconds`.

    Raises StorageLost then, and Interrupted as soon as `stopped` says that a signal has come meanwhile.
    """

    def __init__(self, wait_seconds: float, stopped: Callable[[], bool] = lambda: False) -> None:
        self.wait_seconds, self.stopped = wait_seconds, stopped

    def __call__(self, call: Callable[[], T]) -> T:
        began, pause, warned = 0.0, 0.1, False
        while True:
            try:
                answer = call()
            except UNREACHABLE as error:
                said, now = one_line(error.__cause__ or error), time.monotonic()
                began = began or now
                if now - began > HICCUP_SECONDS and not warned:
                    warned = True
                    console.print(
                        f"The sweep's storage does not answer ({said}): waiting up to {self.wait_seconds:g} s."
                    )
                if now - began > self.wait_seconds:
                    raise StorageLost(
                        f"The sweep's storage has not answered for {self.wait_seconds:g} s ({said}); nothing is lost: "
                        "start the worker again when it is back."
                    ) from error
                if self.stopped():
                    raise Interrupted from error
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                if warned:
                    console.print("The sweep's storage answers again.")
                return answer


class RepairingLock(JournalFileOpenLock):
    """The lock of a journal; the first to acquire it removes a truncated last line."""

    def __init__(self, journal: Path, grace_period: int) -> None:
        super().__init__(str(journal), grace_period)
        self.journal = journal

    def acquire(self) -> bool:
        taken = super().acquire()
        try:
            cut_torn_end(self.journal)
        except BaseException:
            self.release()
            raise
        return taken


def cut_torn_end(journal: Path) -> None:
    """Remove a last line without its end, keeping a copy of it; the caller holds the journal's lock."""
    if not journal.is_file():
        return
    with open(journal, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0 or _last_byte(file) == b"\n":
            return
        file.seek(0)
        end = file.read().rfind(b"\n") + 1
        file.seek(end)
        _keep_copy(journal, f"torn-{end}", file.read())
        file.truncate(end)
        os.fsync(file.fileno())


def _last_byte(file: IO[bytes]) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def _keep_copy(journal: Path, name: str, content: bytes) -> None:
    path = journal.with_name(f"{journal.name}.{name}")
    path.write_bytes(content)
    console.print(f"{journal} was damaged, as by a full disk; what was removed from it is kept in {path}.")


def drop_damaged_lines(journal: Path) -> None:
    """Remove lines that are no records of Optuna's; of a torn line with a record behind it, that record stays.

    Writers that do not repair (other programs on the journal) leave such lines. The caller holds the journal's lock.
    """
    content, read = journal.read_bytes(), compat.journal_reader()
    kept, damaged = [], False
    for line in content.splitlines(keepends=True):
        for start in (0, line.rfind(b'{"op_code"')):
            with suppress(*compat.NO_RECORD):
                read(json.loads(line[max(start, 0) :]))
                kept.append(line[max(start, 0) :])
                damaged = damaged or start > 0
                break
        else:
            damaged = True
    if damaged:
        _keep_copy(journal, f"damaged-{len(content)}", content)
        temporary = journal.with_name(f".{journal.name}.tmp")
        temporary.write_bytes(b"".join(kept))
        os.replace(temporary, journal)


def open_storage(storage: StorageConfig, folder: Path, create: bool) -> BaseStorage:
    """The storage of a sweep whose folder is `folder`. Raises UserError for one that cannot be used."""
    url = str(storage.url)
    if "://" not in url:
        return _journal(Path(url), storage.lock_seconds, create)
    try:
        parsed = make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise UserError(f"storage.url={url} is neither a file nor a URL such as postgresql://user@host/name.") from None
    if parsed.get_backend_name() == "sqlite":
        if create:
            _refuse_second_worker(folder)
        return get_storage(RDBStorage(url))
    if parsed.get_backend_name() != "postgresql":
        raise UserError(
            f"storage.url={url}: choose a file (the default), postgresql:// or, for one worker, sqlite:///."
        )
    if parsed.password is not None:
        raise UserError(
            "storage.url holds a password, which sweep.yaml would show: put it into ~/.pgpass or PGPASSWORD."
        )
    engine = {"pool_pre_ping": True, "pool_size": 1, "max_overflow": 2, "connect_args": {"connect_timeout": 10}}
    try:
        return get_storage(RDBStorage(parsed.set(drivername="postgresql+psycopg").render_as_string(), engine))
    except ImportError:
        raise UserError("PostgreSQL needs its driver: pip install 'research[postgres]'.") from None


def _journal(path: Path, lock_seconds: int, create: bool) -> BaseStorage:
    if not create and not path.is_file():
        raise UserError(f"There is no sweep yet: {path} does not exist.")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = RepairingLock(path, lock_seconds)
    if path.is_file() and (create or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))):
        lock.acquire()
        try:
            drop_damaged_lines(path)
        finally:
            lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


_alone: list[IO[str]] = []  # locks that live as long as the process


def _refuse_second_worker(folder: Path) -> None:
    """SQLite is for one worker: two take the same trial, and on a shared file system the file breaks."""
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / ".sqlite-worker", "a", encoding="utf-8")  # noqa: SIM115 - held while the process lives
    if not try_lock(file):
        file.close()
        raise UserError(
            "storage.url is an SQLite file and another worker is using it: SQLite cannot be shared, workers overwrite "
            "each other's records and a shared file system breaks the file. Leave storage.url out (a journal file) or "
            "use postgresql://."
        )
    _alone.append(file)
