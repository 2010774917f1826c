"""Data maps (Swayamdipta et al. 2020): each validation example by how sure and how steady the model was of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from research.report.error_analysis.cartography import Map, of_run
from research.report.figures import style
from research.report.groups import Grid, best_group
from research.report.records import Record
from research.report.tables.cells import file_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLACE = 90  # on the page


def figures(grid: Grid, records: Sequence[Record]) -> Iterator[tuple[str, str, Figure]]:
    for data_set in grid.data_sets:
        group = best_group(grid, data_set)
        drawn = next((found for run in group.runs if (found := of_run(run))), None) if group else None
        if group is None or drawn is None:
            continue
        answer = "gold label" if drawn.examples.has_labels else "gold answer (its score)"
        caption = (
            f"Data map of the {len(drawn.ids):,} validation examples of {data_set}: mean (confidence) and standard "
            f"deviation (variability) of the probability of the {answer} over the evaluations of one run of "
            f"{group.system}; the colour (correctness) is the share of evaluations that got it right."
        )
        yield f"cartography-{file_name(data_set)}", caption, draw_data_map(drawn)


def draw_data_map(drawn: Map) -> Figure:
    figure, axes = style.new_figure(2.5)
    places = {"x": drawn.variability, "y": drawn.confidence, "c": drawn.correctness}
    dots = axes.scatter(
        **places, cmap=style.SEQUENTIAL, vmin=0, vmax=1, s=5, alpha=0.7, linewidths=0, rasterized=len(drawn.ids) > 2000
    )
    axes.set_xlabel("variability (%)")
    axes.set_ylabel("confidence (%)")
    axes.set_ylim(-0.03, 1.03)
    bar = figure.colorbar(dots, ax=axes, label="correctness (%)", pad=0.02, aspect=30)
    style.per_cent(axes.xaxis, axes.yaxis, bar.ax.yaxis)
    return figure
