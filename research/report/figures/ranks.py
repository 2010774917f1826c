"""Critical-difference diagrams (Demšar 2006): average ranks of systems over data sets.

Systems whose average ranks differ by less than the critical difference of the Nemenyi test at 5 % are joined by a bar.

Legend: D data sets, S systems.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from research.report.figures import style
from research.report.groups import Grid
from research.report.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLACE = 40  # on the page
LEAST_SYSTEMS = LEAST_DATA_SETS = 3
MOST_SYSTEMS = 12
ALPHA = 0.05


def figures(grid: Grid, records: Sequence[Record]) -> Iterator[tuple[str, str, Figure]]:
    names, scores = mean_scores(grid)
    D, S = scores.shape
    if not (D >= LEAST_DATA_SETS and LEAST_SYSTEMS <= S <= MOST_SYSTEMS):
        return
    difference = critical_difference(S, D)
    ranks = average_ranks(scores)
    caption = (
        f"Average ranks of {S} systems over {D} data sets (1 is best). Systems joined by a bar do not differ by the "
        f"Nemenyi test at 5 % (critical difference {difference:.2f}); Friedman p = {friedman_p(scores):.3g}."
    )
    yield "ranks", caption, draw_ranks(names, ranks, difference)


def mean_scores(grid: Grid) -> tuple[list[str], np.ndarray]:
    """Systems with runs on every data set, and their mean scores (D, S)."""
    rows = [[grid.find(settings, data_set) for data_set in grid.data_sets] for settings in grid.systems]
    complete = [row for row in rows if all(group is not None and group.runs for group in row)]
    means = [[group.scores(group.split).mean() for group in row if group is not None] for row in complete]
    names = [row[0].system if row[0] is not None else "" for row in complete]
    return names, np.array(means, dtype=float).reshape(len(complete), len(grid.data_sets)).T


def average_ranks(scores: np.ndarray) -> np.ndarray:
    """Mean rank (S,) over the data sets of scores (D, S); the highest score has rank 1, equal ones share theirs."""
    from scipy.stats import rankdata

    ranks: np.ndarray = rankdata(-scores, axis=1).mean(0)
    return ranks


def friedman_p(scores: np.ndarray) -> float:
    """p-value of the Friedman test that all systems rank alike."""
    from scipy.stats import friedmanchisquare

    if (scores == scores[:, :1]).all():
        return 1.0
    return float(friedmanchisquare(*scores.T).pvalue)


def critical_difference(systems: int, data_sets: int, alpha: float = ALPHA) -> float:
    """Of average ranks, by the Nemenyi test (Demšar 2006, section 3.2.2)."""
    from scipy.stats import studentized_range

    quantile = studentized_range.ppf(1 - alpha, systems, math.inf) / math.sqrt(2)
    return float(quantile * math.sqrt(systems * (systems + 1) / (6 * data_sets)))


def cliques(ranks: np.ndarray, difference: float) -> list[tuple[float, float]]:
    """The widest runs of systems that do not differ, as (lowest, highest) rank; single systems are left out."""
    ordered = np.sort(ranks)
    spans = [(low, ordered[ordered < low + difference].max()) for low in ordered]
    return [
        (float(low), float(high))
        for i, (low, high) in enumerate(spans)
        if high > low and not any(high <= other for _, other in spans[:i])
    ]


def draw_ranks(names: Sequence[str], ranks: np.ndarray, difference: float) -> Figure:
    """Names on both sides of an axis of ranks, the best at the left."""
    order = np.argsort(ranks, kind="stable")
    half = math.ceil(len(order) / 2)
    figure, axes = style.new_figure(0.75 + 0.22 * half)
    lowest, highest = math.floor(ranks.min()), math.ceil(ranks.max())
    highest = max(highest, math.ceil(lowest + difference), lowest + 1)
    axes.set_axis_off()
    axes.grid(False)
    width = highest - lowest
    axes.set_xlim(lowest - 0.75 * width, highest + 0.75 * width)
    axes.plot([lowest, highest], [0, 0], color="black", linewidth=0.8)
    for tick in range(lowest, highest + 1):
        axes.plot([tick, tick], [0, 0.18], color="black", linewidth=0.8)
        axes.text(tick, 0.28, str(tick), ha="center", va="bottom", fontsize=7)
    axes.plot([lowest, lowest + difference], [1.35, 1.35], color="black", linewidth=1.2, marker="|", markersize=4)
    label = f"critical difference {difference:.2f}"
    axes.text(lowest + difference / 2, 1.45, label, ha="center", va="bottom", fontsize=7)
    bars = cliques(ranks, difference)
    for level, (low, high) in enumerate(bars):
        y = -0.3 - 0.22 * level
        axes.plot([low - 0.02 * width, high + 0.02 * width], [y, y], color=style.COLOURS[1], linewidth=2.2)
    first = -0.75 - 0.22 * len(bars)
    for place, i in enumerate(order):
        left = place < half
        y = first - 0.6 * (place if left else len(order) - 1 - place)
        edge = lowest - 0.05 * width if left else highest + 0.05 * width
        _name(axes, names[i], float(ranks[i]), edge, y, 0.03 * width if left else -0.03 * width)
    axes.set_ylim(first - 0.6 * half, 2.1)
    return figure


def _name(axes: Axes, name: str, rank: float, edge: float, y: float, gap: float) -> None:
    axes.plot([rank, rank, edge], [0, y, y], color=style.GREY, linewidth=0.6)
    shown = name if len(name) <= 24 else name[:22] + " …"
    axes.text(edge - gap, y, f"{shown} ({rank:.2f})", ha="right" if gap > 0 else "left", va="center", fontsize=7)
