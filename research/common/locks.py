"""Locks on files that end with the process that holds them."""

from __future__ import annotations

import fcntl
from typing import Protocol


class HasDescriptor(Protocol):
    """An open file."""

    def fileno(self) -> int: ...


def try_lock(file: int | HasDescriptor, shared: bool = False) -> bool:
    """Lock an open file without waiting; False where another process holds it. A shared lock admits other shared ones.

    Raises OSError on a file system without locks.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
