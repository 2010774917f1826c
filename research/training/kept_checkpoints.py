"""Which checkpoints stay: the newest and the needed ones while training continues, and what a finished run keeps."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from research.training.checkpoint import files, step_of


def rotate(folder: Path, latest: Path, keep: int, needed: Collection[int]) -> None:
    """Remove all but the newest `keep` checkpoints and those of the steps `needed`; `latest` has just been written.

    What is at its step or later was damaged, and training has gone back before it.
    """
    others = [path for path in files(folder) if path != latest]
    damaged = [path for path in others if step_of(path) >= step_of(latest)]
    for path in [*damaged, *others[len(damaged) + keep - 1 :]]:
        if path in damaged or step_of(path) not in needed:
            path.unlink(missing_ok=True)


def remove(folder: Path, keep: str, needed: Collection[int]) -> None:
    """Remove the checkpoints that a finished run does not keep: `keep` is none, best or all."""
    for path in files(folder):
        if keep == "none" or (keep == "best" and step_of(path) not in needed):
            path.unlink(missing_ok=True)
