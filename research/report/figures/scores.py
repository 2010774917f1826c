"""Score distributions: every run of every system as a dot, with mean and standard deviation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from research.metrics.score import Score
from research.report.figures import style
from research.report.groups import Grid, leading_groups, left_out_note
from research.report.records import Record
from research.report.tables.cells import file_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLACE = 10  # on the page
MOST_ROWS = 20


def figures(grid: Grid, records: Sequence[Record]) -> Iterator[tuple[str, str, Figure]]:
    for data_set in grid.data_sets:
        groups = leading_groups(grid, data_set, MOST_ROWS)
        rows = {group.system: group.repeated(group.split) for group in groups}
        if not any(len(scores) > 1 for scores in rows.values()):
            continue
        metric, split = groups[0].score.label, groups[0].split
        dot = {"folds": "fold", "samples": "few-shot sample"}.get(groups[0].repeats, "run")
        caption = (
            f"{split.capitalize()} {metric} on {data_set}: each dot is a {dot}, the bar spans one standard "
            "deviation to each side of the mean (diamond)." + left_out_note(len(groups), grid, data_set)
        )
        yield f"scores-{file_name(data_set)}", caption, draw_scores(rows, f"{split} {metric}", groups[0].score)


def draw_scores(rows: Mapping[str, np.ndarray], label: str, score: Score) -> Figure:
    """One row of dots per system; `rows`: its name -> one score per run."""
    figure, axes = style.new_figure(0.55 + 0.34 * len(rows))
    every = np.concatenate(list(rows.values()))
    span = float(np.ptp(every)) or 1.0
    for row, (name, scores) in enumerate(rows.items()):
        colour = style.COLOURS[row % len(style.COLOURS)]
        places = row + swarm(scores, span / 30)
        axes.plot(scores, places, "o", color=colour, alpha=0.6, markeredgewidth=0, gid=name)
        if len(scores) > 1:
            spread = {"xerr": scores.std(ddof=1), "capsize": 2, "elinewidth": 0.9}
            axes.errorbar(scores.mean(), row + 0.3, fmt="D", color=colour, markersize=3.6, **spread)
    style.name_rows(axes, list(rows))
    style.score_axis(axes.xaxis, label, score)
    return figure


def swarm(values: np.ndarray, width: float) -> np.ndarray:
    """Offsets (R,) upwards that keep dots closer than `width` from hiding each other; the fifth hides one again."""
    offsets = np.zeros(len(values))
    order = np.argsort(values, kind="stable")
    for place, i in enumerate(order):
        taken = {offsets[j] for j in order[:place] if values[i] - values[j] < width}
        offsets[i] = next((step for step in (0.0, -0.1, -0.2, -0.3) if step not in taken), 0.0)
    return offsets
