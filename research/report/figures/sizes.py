"""Learning curves over the size of the training set: score against number of training examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from research.metrics.score import Score
from research.report.figures import style
from research.report.groups import Grid, RunGroup
from research.report.records import Record
from research.report.settings import system_name
from research.report.tables.cells import file_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLACE = 30  # on the page
SIZE_KEY = "data.max_train_examples"


def figures(grid: Grid, records: Sequence[Record]) -> Iterator[tuple[str, str, Figure]]:
    if SIZE_KEY not in grid.by:
        return
    for data_set in grid.data_sets:
        groups = [group for group in grid.groups if group.data_set == data_set and group.runs]
        series = {name: points for name, points in series_of(groups).items() if len(points) > 1}
        if series:
            metric, split = groups[0].score.label, groups[0].split
            caption = (
                f"{split.capitalize()} {metric} on {data_set} against the number of training examples: mean "
                f"over {groups[0].repeats}, bars are one standard deviation to each side."
            )
            shown = dict(list(series.items())[: style.MOST_LINES])
            yield f"sizes-{file_name(data_set)}", caption, draw_sizes(shown, f"{split} {metric}", groups[0].score)


def series_of(groups: Sequence[RunGroup]) -> dict[str, dict[int, np.ndarray]]:
    """System without its size -> number of training examples, as recorded -> one score per run."""
    found: dict[str, dict[int, np.ndarray]] = {}
    for group in groups:
        size = (group.runs[0].fingerprint("train") or ("", 0))[1]
        rest = {key: text for key, text in group.texts.items() if key != SIZE_KEY}
        found.setdefault(system_name(rest) or group.data_set, {})[size] = group.repeated(group.split)
    return {name: dict(sorted(points.items())) for name, points in found.items()}


def draw_sizes(series: Mapping[str, Mapping[int, np.ndarray]], y_label: str, score: Score) -> Figure:
    figure, axes = style.new_figure(2.0)
    for i, (name, points) in enumerate(series.items()):
        sizes = list(points)
        means = [scores.mean() for scores in points.values()]
        spread = [scores.std(ddof=1) if len(scores) > 1 else 0.0 for scores in points.values()]
        axes.errorbar(sizes, means, yerr=spread, label=name, capsize=2, elinewidth=0.8, **style.look(i))
    axes.set_xscale("log")
    style.log_axis(axes.xaxis)
    axes.set_xlabel("training examples")
    style.score_axis(axes.yaxis, y_label, score)
    if len(series) > 1:
        style.legend_below(figure, axes)
    return figure
