"""Several ranks on one machine, started and watched by the command itself."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from research.cluster.signals import SIGNALS, STOPPED

POLL_SECONDS = 0.1
Ranks = list[subprocess.Popen[bytes]]


def launch(count: int, command: Sequence[str]) -> int:
    """Run a command as `count` ranks, and return when all have ended.

    Signals are passed on to every rank, and no rank outlives this process or another's failure. Returns the exit code
    of the first that failed, else STOPPED if one stopped, else 0.
    """
    ranks: Ranks = []
    passed_on: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        passed_on.append(number)
        send(ranks, number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        for environment in environments(count):
            # In groups of their own: Ctrl-C reaches this process alone, and each of them once.
            ranks.append(subprocess.Popen(command, env=environment, process_group=0, preexec_fn=_end_with_parent))
        for number in set(passed_on):  # while they were being started
            send(ranks, number)
        return _watch(ranks, passed_on)
    finally:
        send(ranks, signal.SIGKILL)
        for number, handler in before.items():
            signal.signal(number, handler)


def environments(count: int) -> list[dict[str, str]]:
    """The variables of each rank, by torchrun's names."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    each = ({**shared, "RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0} for rank in range(count))
    return [{**os.environ, **{name: str(value) for name, value in own.items()}} for own in each]


def send(ranks: Ranks, number: int) -> None:
    """Send a signal to those that still run."""
    for rank in ranks:
        rank.send_signal(number)


def _watch(ranks: Ranks, passed_on: list[int]) -> int:
    stopping = False
    while True:
        codes = [rank.poll() for rank in ranks]
        # A signal that came before Python was up has stopped a rank too.
        codes = [STOPPED if code is not None and -code in passed_on else code for code in codes]
        for rank, code in enumerate(codes):
            if code not in (None, 0, STOPPED):
                return _end(ranks, rank, code)
        if STOPPED in codes and not stopping:
            stopping = True
            passed_on.append(signal.SIGTERM)
            send(ranks, signal.SIGTERM)  # the signal may have reached one rank alone
        if None not in codes:
            return STOPPED if stopping else 0
        time.sleep(POLL_SECONDS)


def _end(ranks: Ranks, failed: int, code: int) -> int:
    """End the others after one has failed. Returns its exit code as a shell would."""
    send(ranks, signal.SIGKILL)
    for rank in ranks:
        rank.wait()
    if code > 0:
        return code
    print(f"research: rank {failed} was killed by {signal.Signals(-code).name}, so the others end.", file=sys.stderr)
    return 128 - code


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
