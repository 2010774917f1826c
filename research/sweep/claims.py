"""Claims of trials: files in the sweep's folder that decide which worker runs which trial.

`trials/0007/claim-2` is the second claim on trial 7: a line that says who made it, and a dot for each heartbeat since.
The newest claim counts. A worker that finds it free links the next one into place; the file system lets one win. A
claim is free when it was given back, when its process has died (the kernel has dropped its lock: known at once on the
same machine) or when it has been silent for so long by the finder's own clock (on another machine). So storages need
no heartbeat of their own, clocks need not agree, and nothing is ever locked for all workers.

A process that finds a newer claim than its own was taken for dead: it ends at once, before it writes another byte.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from research.cluster.signals import STOPPED
from research.common.locks import try_lock

GIVEN_BACK = b"released\n"


def _boot_id() -> str:
    """Names this kernel, between two starts of it: processes of one see each other's locks."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{socket.gethostname()}-{os.getppid()}"


class Claim:
    """This process's claim on a trial, kept alive by a thread until `end`."""

    def __init__(self, path: Path, descriptor: int, heartbeat_seconds: float, lost: Callable[[Claim], None]) -> None:
        self.path, self.number = path, int(path.parent.name)
        self._descriptor, self._seconds, self._lost = descriptor, heartbeat_seconds, lost
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"claim {self.number}", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._ended.wait(self._seconds):
            with suppress(OSError):  # a file system that is away for a moment; others watch the silence
                if self.is_superseded():
                    self._lost(self)
                    return
                os.write(self._descriptor, b".")
                os.fsync(self._descriptor)

    def is_superseded(self) -> bool:
        """Has another worker claimed the trial, assuming that this process has died?"""
        return newest(self.path.parent) != self.path

    def give_back(self) -> None:
        """Release the trial, so that the next worker can claim it immediately."""
        self._stop()  # a heartbeat behind the mark would hide it
        with suppress(OSError):
            os.write(self._descriptor, b"\n" + GIVEN_BACK)
            os.fsync(self._descriptor)
        self.close()

    def end(self) -> None:
        """Stop the heartbeat; the lock is dropped."""
        self._stop()
        self.close()

    def _stop(self) -> None:
        self._ended.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _end_process(claim: Claim) -> None:
    print(f"Trial {claim.number} was taken over by another worker: this process ends.", file=sys.stderr, flush=True)
    os._exit(STOPPED)


def generation(path: Path) -> int:
    return int(path.name.removeprefix("claim-"))


def claims_in(folder: Path) -> list[Path]:
    """The claims on a trial, newest first; files of other names are none."""
    found = [path for path in folder.glob("claim-*") if re.fullmatch(r"claim-\d+", path.name) and path.is_file()]
    return sorted(found, key=generation, reverse=True)


def newest(folder: Path) -> Path | None:
    """The newest claim of a trial, which is the valid one."""
    return next(iter(claims_in(folder)), None)


class Claims:
    """The claims on the trials of a sweep, as one process sees them."""

    def __init__(
        self,
        folder: Path,
        heartbeat_seconds: float,
        dead_after_seconds: float,
        lost: Callable[[Claim], None] = _end_process,
    ) -> None:
        self.folder, self.heartbeat_seconds, self.dead_after_seconds = folder, heartbeat_seconds, dead_after_seconds
        self._lost = lost
        self._boot_id = _boot_id()
        self._seen: dict[Path, tuple[int, float, bool]] = {}  # bytes, since when by our clock, were there fewer before

    def of(self, number: int) -> Path:
        return self.folder / f"{number:04d}"

    def take(self, number: int, progress: Callable[[int], str] = lambda number: "") -> Claim | None:
        """Claim a trial; None where another process works on it, or may.

        `progress` says how far the runs of a trial are, for those who wonder why its workers die.
        """
        folder = self.of(number)
        before = newest(folder)
        if before is not None and not self.is_free(before):
            return None
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"claim-{generation(before) + 1 if before else 1}"
        temporary = folder / f".claim-{secrets.token_hex(8)}"
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND, 0o666)
        try:
            os.write(descriptor, self._header(_lock(descriptor), progress(number)))
            os.fsync(descriptor)
            with suppress(FileExistsError):
                os.link(temporary, path)
            won = os.fstat(descriptor).st_nlink == 2  # NFS may say no to a link that it has made
        except BaseException:
            os.close(descriptor)
            raise
        finally:
            temporary.unlink(missing_ok=True)
        if not won:
            os.close(descriptor)
            return None
        return Claim(path, descriptor, self.heartbeat_seconds, self._lost)

    def _header(self, locked: bool, progress: str) -> bytes:
        content = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "since": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "boot": self._boot_id if locked else None,
            "progress": progress,
        }
        return json.dumps(content).encode() + b"\n"

    def is_free(self, path: Path) -> bool:
        """Has the claim been given back, or its process died?"""
        content = path.read_bytes()
        if content.endswith(GIVEN_BACK):
            return True
        if _header_of(content)["boot"] == self._boot_id:
            return _is_unlocked(path)
        self._look(path, len(content))
        return time.monotonic() - self._seen[path][1] > self.dead_after_seconds

    def is_alive(self, number: int) -> bool:
        """Does a process certainly work on this trial? False also while that is not known yet."""
        path = newest(self.of(number))
        if path is None or self.is_free(path):
            return False
        return _header_of(path.read_bytes())["boot"] == self._boot_id or self._seen[path][2]

    def _look(self, path: Path, size: int) -> None:
        before = self._seen.get(path)
        if before is None or before[0] != size:
            self._seen[path] = (size, time.monotonic(), before is not None)

    def deaths(self, number: int, progress: str) -> int:
        """How many workers in a row died on this trial without any progress."""
        count = 0
        for path in claims_in(self.of(number)):
            content = path.read_bytes()
            if content.endswith(GIVEN_BACK) or _header_of(content)["progress"] != progress:
                break
            count += 1
        return count


def _header_of(content: bytes) -> dict[str, Any]:
    """The process that made a claim; of a damaged claim an unknown one, so that the claim expires by its silence."""
    unknown = {"boot": None, "progress": None}
    try:
        header = json.loads(content.split(b"\n", 1)[0])
    except ValueError:
        return unknown
    return {**unknown, **header} if isinstance(header, dict) else unknown


def _lock(descriptor: int) -> bool:
    """Lock a new claim; False on a file system without locks."""
    try:
        return try_lock(descriptor)
    except OSError:
        return False


def _is_unlocked(path: Path) -> bool:
    """Take a shared lock, so that two readers do not block each other."""
    with open(path, "rb") as file:
        return try_lock(file, shared=True)
