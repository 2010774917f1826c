"""How OpenMP's threads wait for one another: spinning on a quiet machine, asleep on a busy one.

Threads that spin are fastest as long as each has a core. Where another job wants the cores too, a thread spins through
the time in which the one it waits for could run: a step of two threads takes 10 to 70 times as long. Threads that sleep
cost a quiet machine a quarter to a half of its speed. So it is decided when a command starts, by whether other
processes are running then. `OMP_WAIT_POLICY` and `GOMP_SPINCOUNT`, where they are set, are kept.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

LOOKS, BETWEEN_SECONDS = 9, 0.01


def choose_waiting_policy() -> None:
    """Choose how threads wait, before torch is imported: OpenMP reads its settings once."""
    cores = os.cpu_count() or 1
    if waiting(cores + 1, cores, os.environ):  # or nothing depends on how busy the machine is, and a look takes 0.1 s
        os.environ.update(waiting(running_processes(), cores, os.environ))


def waiting(running: float, cores: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The settings to add, with so many processes `running` on the machine, this one included."""
    if environment.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        return {}
    asked = environment.get("OMP_NUM_THREADS", "")
    threads = min(int(asked), cores) if asked.isdecimal() else len(os.sched_getaffinity(0))
    is_shared = threads > 1 and running - 1 + threads > cores
    return {"OMP_WAIT_POLICY": "passive"} if is_shared else {}


def running_processes() -> float:
    """Processes and threads that run or wait for a core now: the median of some looks, and 1 where nothing tells."""
    try:
        found = []
        for _ in range(LOOKS):
            found.append(int(Path("/proc/loadavg").read_text().split()[3].split("/")[0]))
            time.sleep(BETWEEN_SECONDS)
        return statistics.median(found)
    except (OSError, ValueError, IndexError):
        return 1.0
