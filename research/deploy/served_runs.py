"""Which runs a service serves under which names, and whether they can be served; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from research.common.errors import UserError
from research.inference.finished_run import finished_result
from research.tracking.run import Run

SETTINGS, REFERENCE = "research.json", "reference.json"  # of an exported folder


def names_of(runs: Sequence[str]) -> dict[str, Path]:
    """The name of each run in URLs: that of its folder, or what stands before `=`. Raises UserError for one twice.

    Of a run of several tasks each is served, as `name.task`.
    """
    named: dict[str, Path] = {}
    for given in runs:
        said, _, path = given.rpartition("=")
        folder = Path(path).resolve()
        run = said or (folder.parent.name if folder.name.startswith("seed") else folder.name)
        parts = {f"{run}.{task}": part for task, part in Run(folder).parts.items()}
        for name, place in (parts or {run: folder}).items():
            if name in named:
                raise UserError(f"two runs are named '{name}'; name them apart: a={named[name]} b={path}")
            if not name or not all(c.isalnum() or c in "-_." for c in name):
                raise UserError(
                    f"'{name}' cannot be part of a URL; name the run in letters, digits, - and _: good={path}"
                )
            named[name] = place
    return named


def refuse_unfinished(runs: Mapping[str, Path]) -> None:
    """Raise UserError for a folder that is neither a finished run nor an exported one."""
    for path in runs.values():
        if not (path / SETTINGS).is_file():
            finished_result(Run.read(path))
