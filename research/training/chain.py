"""Runs one after the other of one command, of which a finished one is not made again."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from omegaconf import OmegaConf

from research.cluster.launch import launch
from research.cluster.ranks import ranks_of
from research.common.console import console
from research.common.errors import UserError
from research.config.schema import Config
from research.config.tree import to_dict
from research.tracking.run import Run
from research.training.run import train


class Stopped(Exception):
    """A signal ended a run; the same command resumes it."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


def finished(config: Config, title: str) -> Run:
    """The finished run of a config, trained where it is not. Raises Stopped where a signal ends it."""
    run = Run(str(config.run_dir))
    if run.result is None:
        console.print(title, markup=False)
    code = train_in_ranks(config)
    if code:
        raise Stopped(code)
    return Run.read(run.path)


def train_in_ranks(config: Config) -> int:
    """Train in this process, or in as many as the experiment asks for. Returns the exit code.

    Raises UserError where this process is itself one of several ranks.
    """
    world = ranks_of(config.trainer)
    if world.size == 1:
        return train(config)
    if world.launcher is not None:
        raise UserError(
            f"This command starts the ranks of each run by itself, and {world.launcher} started it as {world.size}; "
            "start it once, and say trainer.devices."
        )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "experiment.yaml"
        OmegaConf.save(OmegaConf.create(to_dict(config)), path)
        return launch(world.size, [sys.executable, "-P", "-m", "research.cli", "train", str(path)])
