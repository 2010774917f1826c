"""Runs one after the other in one process, of which a finished one is not made again."""

from __future__ import annotations

from research.common.console import console
from research.config.schema import Config
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
    code = train(config)
    if code:
        raise Stopped(code)
    return Run.read(run.path)
