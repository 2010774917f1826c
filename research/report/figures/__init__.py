"""Figures for the paper, each drawn where the runs allow it: vector PDF, and PNG beside it.

Each file of this folder with a function `figures(grid, records)` draws one kind; it yields file name, caption, figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from research.report.figures import (
    budget,
    calibration,
    cartography,
    confusion,
    learning,
    ranks,
    scores,
    sizes,
    style,
    sweep_map,
)
from research.report.groups import Grid
from research.report.records import Record

KINDS = (scores, learning, sizes, ranks, sweep_map, budget, calibration, confusion, cartography)


def draw(grid: Grid, records: Sequence[Record], folder: Path) -> dict[Path, str]:
    """Draw what the runs allow into a folder: the path of each PDF, with its caption."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    with style.applied():
        for kind in KINDS:
            for name, caption, figure in kind.figures(grid, records):
                drawn[style.save(figure, folder, name)] = caption
    return drawn
