"""Figures for the paper, each drawn where the runs allow it: vector PDF, and PNG beside it.

A kind of figure is a file of this folder with `figures(grid, records)`, which yields file name, caption and figure, and
`PLACE`, a number by which the page is ordered. It is found by its file.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Protocol, cast

from research.report.figures import style
from research.report.groups import Grid
from research.report.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("research")


class Kind(Protocol):
    """A file of this folder that draws."""

    PLACE: int

    def figures(self, grid: Grid, records: Sequence[Record]) -> Iterator[tuple[str, str, Figure]]: ...


def kinds() -> list[Kind]:
    """The files of this folder that draw, in the order of the page."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    return sorted((cast(Kind, each) for each in modules if hasattr(each, "figures")), key=lambda kind: kind.PLACE)


def draw_figures(grid: Grid, records: Sequence[Record], folder: Path) -> dict[Path, str]:
    """Draw what the runs allow into a folder: the path of each PDF, with its caption."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    with style.applied(), warnings.catch_warnings(record=True) as caught:
        for kind in kinds():
            for name, caption, figure in kind.figures(grid, records):
                drawn[style.save_figure(figure, folder, name)] = caption
    if any("missing from font" in str(warning.message) for warning in caught):
        log.warning("No installed font has all characters of the figures; on Debian: apt install fonts-droid-fallback")
    return drawn
