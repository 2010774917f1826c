"""Work of a command on several ranks: this process is one of them, or starts them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from research.cluster.signals import STOPPED, exit_stopped
from research.common.process import prepare_process
from research.common.threads import choose_waiting_policy

if TYPE_CHECKING:
    from research.cluster.group import RankGroup
    from research.config.schema import TrainerConfig


def in_ranks(
    options: argparse.Namespace, trainer: TrainerConfig, name: str, work: Callable[[Any, RankGroup], int]
) -> int:
    """Do the work of a module as one of the ranks there are, or start as many as the experiment asks for."""
    from importlib import import_module

    from research.cluster.launch import launch
    from research.cluster.ranks import ranks_of

    prepare_process()
    world = ranks_of(trainer)
    if world.launcher is None:  # several ranks would take one another for strangers
        choose_waiting_policy()
    if world.launcher is None and world.size > 1:
        return launch(world.size, [sys.executable, "-P", "-m", "research.cli", *options.command_line])
    from research.cluster.group import LEAVE_SECONDS, rendezvous

    group = rendezvous(world, trainer.accelerator)  # before the other imports: they take seconds
    code = work(import_module(name), group)
    if code == 0:
        group.leave()
        if world.size > 1:  # threads of the process group may abort Python's own end
            sys.stdout.flush()
            os._exit(0)
    elif code == STOPPED and world.size > 1:
        group.leave(LEAVE_SECONDS)
        exit_stopped(world.rank)
    return code
