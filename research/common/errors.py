"""The exceptions that are meant for people."""

from __future__ import annotations

import os
import re


class UserError(Exception):
    """A mistake a user can fix: commands and notebooks show its one sentence and no traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter print in place of the traceback."""
        return [f"{type(self).__name__}: {self}"]


class Diverged(UserError):
    """A run's loss or gradient is no longer a number."""


class InUse(UserError):
    """Another process holds the run folder."""


def is_out_of_memory(error: BaseException) -> bool:
    """Has memory run out, of a device or of the machine?"""
    names = {kind.__name__ for kind in type(error).__mro__}  # torch's own error, without importing torch
    return bool(names & {"OutOfMemoryError", "MemoryError"}) or "DefaultCPUAllocator" in str(error)


def is_outside_fault(error: BaseException) -> bool:
    """Was it caused by something other than the run itself (a full disk, a lost file system, another process)?

    The same command may succeed later, or elsewhere.
    """
    return isinstance(error, InUse) or as_os_error(error) is not None or isinstance(error.__cause__, OSError)


def as_os_error(error: BaseException) -> OSError | None:
    """The operating system's error behind an exception: tokenizers and safetensors give it as text alone."""
    if isinstance(error, OSError):
        return error
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found and not isinstance(error, UserError) else None
