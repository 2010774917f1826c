"""Learning curves: validation score and training loss over the steps, with bands over runs.

Legend: R runs, S steps.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from research.common.text import counted
from research.report.figures import style
from research.report.groups import Grid, RunGroup, leading_groups, left_out_note
from research.report.records import Record
from research.report.tables.cells import file_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLACE = 20  # on the page
LONGEST_LABEL = 24  # characters that stand beside the upper axes


@dataclass(frozen=True)
class Curve:
    """One scalar of the runs of a system, at the steps that all of them recorded."""

    steps: np.ndarray  # (S,)
    values: np.ndarray  # (R, S)

    @property
    def mean(self) -> np.ndarray:
        mean: np.ndarray = self.values.mean(0)
        return mean

    @property
    def deviation(self) -> np.ndarray | None:
        """Sample standard deviation over the runs (S,); None for a single run."""
        deviation: np.ndarray = self.values.std(0, ddof=1) if len(self.values) > 1 else None  # type: ignore[assignment]
        return deviation


def curve(histories: Sequence[Sequence[Mapping[str, Any]]], key: str) -> Curve:
    """The scalar `key` of R histories (rows with `step`), where all have it; a step's last row counts."""
    runs = [{row["step"]: row[key] for row in history if key in row} for history in histories]
    steps = sorted(set.intersection(*map(set, runs))) if runs else []
    return Curve(np.array(steps), np.array([[run[step] for step in steps] for run in runs], dtype=float))


def figures(grid: Grid, records: Sequence[Record]) -> Iterator[tuple[str, str, Figure]]:
    for data_set in grid.data_sets:
        groups = leading_groups(grid, data_set, style.MOST_LINES)
        histories = {id(group): [run.metrics() for run in group.runs] for group in groups}
        if not any(len(curve(histories[id(g)], watched(g)).steps) > 1 for g in groups):
            continue
        caption = (
            f"Learning curves on {data_set}: {split_of(groups)} score and training loss, mean over runs; bands are one "
            "standard deviation to each side. Each curve ends where the first of its runs ended."
            + left_out_note(len(groups), grid, data_set)
        )
        yield f"learning-{file_name(data_set)}", caption, draw_curves(groups, histories)


def watched(group: RunGroup) -> str:
    """The scalar that the evaluations in training recorded of a group's score."""
    return f"{group.runs[0].watched_split}/{group.metric}"


def split_of(groups: Sequence[RunGroup]) -> str:
    """What the curves are of."""
    sampled = any(group.runs[0].watched_split == "sample" for group in groups)
    return "validation (sample)" if sampled else "validation"


def draw_curves(groups: Sequence[RunGroup], histories: Mapping[int, Sequence[Sequence[Mapping[str, Any]]]]) -> Figure:
    figure, (above, below) = style.new_figure(2.8, rows=2, sharex=True, height_ratios=[3, 2])
    for i, group in enumerate(groups):
        runs = histories[id(group)]
        count = counted(len(runs), "run")
        add(above, curve(runs, watched(group)), style.look(i), f"{group.system} ({count})")
        add(below, curve(runs, "train/loss"), style.look(i) | {"marker": ""}, "")
    label = textwrap.fill(f"{split_of(groups)} {groups[0].score.label}", LONGEST_LABEL)
    style.score_axis(above.yaxis, label, groups[0].score)
    below.set_ylabel("training loss")
    below.set_xlabel("optimiser steps")
    below.set_ylim(bottom=max(0.0, below.get_ylim()[0]))  # a band may reach below, a loss does not
    figure.align_ylabels()
    style.legend_below(figure, above)
    return figure


def add(axes: Axes, line: Curve, look: Mapping[str, Any], label: str) -> None:
    """Draw a curve and its band."""
    if not len(line.steps):
        return
    axes.plot(line.steps, line.mean, label=label, **look)
    if line.deviation is not None:
        low, high = line.mean - line.deviation, line.mean + line.deviation
        axes.fill_between(line.steps, low, high, color=look["color"], alpha=0.18, linewidth=0)
