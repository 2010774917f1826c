"""Stopping between steps: while steps run, a signal sets a flag in the main process and does nothing else.

Who acts on the flag: `training/callbacks/checkpointing.py` saves after the step under way and ends training,
`training/callbacks/evaluation.py` leaves an evaluation, `sweep/worker.py` takes no further trial.
"""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from research.cluster.ranks import started

STOPPED = 75  # exit code of a run that was stopped and can resume from its last checkpoint (EX_TEMPFAIL)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
LAST_SECONDS = 1.0  # in which the other ranks are gone


class Interrupted(BaseException):
    """A signal came while there was nothing to save, or a second Ctrl-C."""


def exit_stopped(rank: int) -> NoReturn:
    """End one of several ranks that were stopped: rank 0 alone with STOPPED, and last.

    srun takes an exit code other than 0 for a failure and kills the ranks that are left, whose code would hide it.
    """
    if rank:
        os._exit(0)
    time.sleep(LAST_SECONDS)
    os._exit(STOPPED)


def handled() -> list[signal.Signals]:
    """SIGNALS without a hangup that the shell ignores (`nohup`)."""
    return [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]


def ignore() -> None:
    """Nothing is left to stop: from now on the exit code is that of what happened, whatever signal arrives."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _leave_terminal(number: int) -> None:
    """After a hangup each write to the terminal would fail."""
    if number == signal.SIGHUP:
        for output in (1, 2):
            with suppress(OSError):
                if stat.S_ISCHR(os.fstat(output).st_mode):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), output)


@contextmanager
def exit_immediately() -> Iterator[None]:
    """While a command starts, and loses nothing by it, a signal ends the process with the exit code STOPPED.

    Without an exception, which a library might catch while it is being imported. Ctrl-C stays Python's own.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        _leave_terminal(number)
        world = started()
        if world.rank == 0:
            os.write(2, b"research: stopped while starting; run the same command again.\n")
        if world.size > 1:
            exit_stopped(world.rank)
        os._exit(STOPPED)

    before = {number: signal.signal(number, leave) for number in handled() if number != signal.SIGINT}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopFlag:
    """Takes over SIGNALS for the time of a run.

    While steps run, the first one is noted in `signal`, and the step under way ends. Before and after, when nothing
    is lost by it, and at a second Ctrl-C, Interrupted is raised at once.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.steps_run = False

    def __enter__(self) -> StopFlag:
        self.before = {number: signal.getsignal(number) for number in handled()}
        self.install()
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def install(self) -> None:
        """Take over the signals; again, after Lightning has set its own handlers."""
        for number in self.before:
            signal.signal(number, self._set)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """While the block runs, signals are only noted, as while steps run."""
        before, self.steps_run = self.steps_run, True
        try:
            yield
        finally:
            self.steps_run = before

    @contextmanager
    def raised_after(self) -> Iterator[None]:
        """A signal that comes in the block interrupts after it: a library in it may swallow the exception."""
        with self.deferred():
            yield
        if self.signal is not None and not self.steps_run:
            raise Interrupted

    def _set(self, number: int, frame: FrameType | None) -> None:
        _leave_terminal(number)
        second = number == signal.SIGINT and self.signal == signal.SIGINT
        self.signal = number
        if not self.steps_run or second:
            raise Interrupted
