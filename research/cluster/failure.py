"""Report the failing rank, end the job, and exit with a failure code."""

from __future__ import annotations

import os
import sys
import time
import traceback

from research.cluster.ranks import World, started
from research.common import extras
from research.common.errors import UserError

HOLD_BACK_SECONDS = 3.0  # a launcher ends the others within one
ABOVE_STOPPED = 100  # srun reports the highest exit code of all ranks


def fail(error: Exception) -> int:
    """Say why this process fails, and return its exit code: 2 for what a person can fix, else 1.

    Of several ranks it does not return. Rank 0 speaks at once; the others, and a rank that has merely lost another,
    give the launcher time to end them, for what they would say has been said.
    """
    if isinstance(error, ModuleNotFoundError) and (advice := extras.advice(error)):
        error = UserError(advice)
    world = started()
    code = 2 if isinstance(error, UserError) else 1
    if world.size == 1 and code == 1:
        raise error
    if world.size > 1 and (world.rank > 0 or _has_lost_the_others(error)):
        time.sleep(HOLD_BACK_SECONDS)
    report = f"research: {error}" if code == 2 else f"{traceback.format_exc()}research: rank {world.rank} failed."
    print(report, file=sys.stderr, flush=True)
    if world.size > 1:
        _leave(world, code)
    return code


def _has_lost_the_others(error: Exception) -> bool:
    group = sys.modules.get("research.cluster.group")
    return group is not None and group.has_lost_the_others(error)


def _leave(world: World, code: int) -> None:
    """End at once: taking leave of a process group, Python would wait for ranks that wait for this one."""
    sys.stdout.flush()
    os._exit(code + ABOVE_STOPPED if world.launcher == "srun" else code)
