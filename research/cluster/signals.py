"""Stopping between steps: a signal sets a flag in the main process and does nothing else."""

from __future__ import annotations

import os
import signal
from types import FrameType

STOPPED = 75  # exit code of a run that was stopped, saved and can go on (EX_TEMPFAIL)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopFlag:
    """True after one of SIGNALS. A second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.owner = os.getpid()

    def install(self) -> None:
        """Take over the signals; call it after Lightning has set its own handlers."""
        for number in SIGNALS:
            signal.signal(number, self._set)

    def _set(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.owner:
            return  # a loader worker inherited this handler by fork
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
