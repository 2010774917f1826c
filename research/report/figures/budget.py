"""Expected validation performance against the budget of a random search (Dodge et al. 2019; Tang et al. 2020).

Drawn for searches by a random sampler for a score that is to be high; the estimator is of the largest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from research.metrics.score import Score
from research.report.figures import style
from research.report.groups import Grid
from research.report.records import Record
from research.report.searches import Search, find_searches
from research.report.statistics.expected import RANDOM_SAMPLERS, ExpectedCurve, expected_validation
from research.report.tables.cells import file_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLACE = 60  # on the page
LEAST_TRIALS = 3


def figures(grid: Grid, records: Sequence[Record]) -> Iterator[tuple[str, str, Figure]]:
    for search in find_searches(records):
        scores = scores_of(search)
        if search.sampler in RANDOM_SAMPLERS and search.maximises and len(scores) >= LEAST_TRIALS:
            drawn = expected_validation(scores, search.sampler)
            lacking = len(search.trials) - len(scores)
            pruned = sum(trial.state == "pruned" for trial in search.trials)
            caption = (
                f"Expected validation {search.score.label} of the best of n trials of the random search "
                f"{search.name} ({len(scores)} trials): unbiased estimator, with the {100 * drawn.level:.0f} % "
                "jackknife band where the trials support one."
                + (f" {pruned} pruned trials count with their last score." if pruned else "")
                + (f" {lacking} trials without a score are left out." if lacking else "")
            )
            yield (
                f"budget-{file_name(search.name)}",
                caption,
                draw_expected_best(drawn, search.score),
            )


def scores_of(search: Search) -> np.ndarray:
    """The scores of the trials that have one (T,)."""
    return np.array([trial.score for trial in search.trials if trial.score is not None], dtype=float)


def draw_expected_best(curve: ExpectedCurve, score: Score) -> Figure:
    figure, axes = style.new_figure(2.1)
    axes.plot(curve.budget, curve.mean, color=style.COLOURS[0])
    axes.fill_between(curve.budget, curve.low, curve.high, color=style.COLOURS[0], alpha=0.18, linewidth=0)
    axes.set_xlabel("trials")
    style.score_axis(axes.yaxis, f"expected validation {score.label}", score)
    axes.set_xlim(1, len(curve.budget))
    return figure
