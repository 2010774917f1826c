"""Figures for the paper, each drawn where the runs allow it: vector PDF, and PNG beside it.

Each file of this folder with a function `figures(grid, records)` draws one kind; it yields file name, caption, figure.
"""

from __future__ import annotations

import logging
import warnings
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

log = logging.getLogger("research")
KINDS = (scores, learning, sizes, ranks, sweep_map, budget, calibration, confusion, cartography)


def draw(grid: Grid, records: Sequence[Record], folder: Path) -> dict[Path, str]:
    """Draw what the runs allow into a folder: the path of each PDF, with its caption."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    with style.applied(), warnings.catch_warnings(record=True) as caught:
        for kind in KINDS:
            for name, caption, figure in kind.figures(grid, records):
                drawn[style.save(figure, folder, name)] = caption
    if any("missing from font" in str(warning.message) for warning in caught):
        log.warning("No installed font has all characters of the figures; on Debian: apt install fonts-droid-fallback")
    return drawn
