"""Free the disk that finished runs no longer need: checkpoints, of which evaluating and predicting read none."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from research.common.errors import UserError
from research.common.files import short_path
from research.common.text import counted
from research.tracking.run import Run
from research.tracking.sync import in_use
from research.training import checkpoint


def prune(paths: Sequence[str], keep: str, confirmed: bool) -> int:
    """Show what can go, ask, and remove it. Returns the exit code; 1 where there is no one to ask.

    Raises UserError for a path that holds no run. Runs that are not finished keep all that resuming needs.
    """
    found = {run.path: removable(run, keep) for given in paths for run in runs_below(Path(given))}
    sizes = {path: sum(file.stat().st_size for file in files) for path, files in found.items()}
    total = sum(sizes.values())
    for path, files in found.items():
        if files:
            print(f"{short_path(path)}: {counted(len(files), 'checkpoint')}, {megabytes(sizes[path])}")
    if not total:
        print(f"Nothing to remove in {counted(len(found), 'run')}.")
        return 0
    if not confirmed:
        if not sys.stdin.isatty():
            print(f"{megabytes(total)} can be freed; nothing was removed: add --yes.")
            return 1
        if input(f"Remove these checkpoints and free {megabytes(total)}? [y/N] ").strip().lower() not in ("y", "yes"):
            print("Nothing was removed.")
            return 0
    for files in found.values():
        for file in files:
            file.unlink(missing_ok=True)
    print(f"{megabytes(total)} freed.")
    return 0


def runs_below(folder: Path) -> Iterator[Run]:
    """The runs in and below a folder."""
    configs = sorted(folder.rglob("config.yaml")) if folder.is_dir() else []
    runs = [Run(path.parent) for path in configs if path.parent.name != "files"]  # W&B keeps one of its own there
    if not runs:
        raise UserError(f"{folder} holds no run folder (one with a config.yaml that training wrote).")
    yield from runs


def removable(run: Run, keep: str) -> list[Path]:
    """The checkpoints of a finished run that do not serve any more; `keep` is none or best."""
    try:
        result = run.result
    except UserError:  # a damaged result is made again from the checkpoints
        return []
    if result is None or in_use(run.path):
        return []
    steps = [checkpoint.step_of(file) for file in checkpoint.files(run.checkpoints)]
    if steps and max(steps) > result.get("steps", max(steps)):  # it is being continued, and was interrupted
        return []
    steps_of = [result.get(name) or {} for name in ("best_steps_of_parts", "continue_steps")]
    kept = (
        {result.get("best_step"), *(step for each in steps_of for step in each.values())} if keep == "best" else set()
    )
    return [file for file in checkpoint.files(run.checkpoints) if checkpoint.step_of(file) not in kept]


def megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
