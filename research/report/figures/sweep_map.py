"""Maps of a search: where in the space the good trials lie, pruned and failed ones marked.

Two parameters give a map with the score as colour, the better trials on top; one gives score against parameter. Of
more, the first two numeric ones of the sweep file are shown, ranges before lists of values, and the caption says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from research.report.figures import style
from research.report.groups import Grid
from research.report.records import Record
from research.report.searches import Search, Trial, find_searches
from research.report.settings import key_text
from research.report.tables.cells import file_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLACE = 50  # on the page


def figures(grid: Grid, records: Sequence[Record]) -> Iterator[tuple[str, str, Figure]]:
    for search in find_searches(records):
        yield from of(search)


def of(search: Search) -> Iterator[tuple[str, str, Figure]]:
    """The map of one search, where two trials or more have a score."""
    keys = numeric_keys(search)
    if not keys or sum(trial.score is not None for trial in search.trials) < 2:
        return
    states = {state: sum(trial.state == state for trial in search.trials) for state in ("pruned", "failed")}
    others = [key for key in search.space if key not in keys[:2]]
    caption = (
        f"Trials of the search {search.name} ({search.sampler}, {len(search.trials)} trials): mean validation "
        f"{search.score.label} of each; the best is ringed."
        + (f" Crosses: {states['pruned']} pruned, by their last score." if states["pruned"] else "")
        + (f" {states['failed']} failed trials are not shown." if states["failed"] else "")
        + (f" Also searched: {', '.join(others)}." if others else "")
    )
    draw = draw_map if len(keys) > 1 else draw_slice
    yield f"sweep-{file_name(search.name)}", caption, draw(search, keys)


def numeric_keys(search: Search) -> list[str]:
    """The searched keys whose values are numbers in every trial, those with a range first."""
    found = [key for key in search.space if all(_is_number(trial.parameters[key]) for trial in search.trials)]
    return sorted(found, key=lambda key: search.space[key].get("choices") is not None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def draw_map(search: Search, keys: Sequence[str]) -> Figure:
    figure, axes = style.new_figure(2.5)
    scored = [trial for trial in search.trials if trial.score is not None]
    scored.sort(key=lambda trial: trial.score or 0.0, reverse=not search.maximises)
    colours = style.SEQUENTIAL + ("" if search.maximises else "_r")  # bright is good
    scale = {"vmin": min(_scores(scored)), "vmax": max(_scores(scored)), "cmap": colours}
    dots: Any = None
    looks = {"finished": {"marker": "o", "s": 20}, "pruned": {"marker": "x", "s": 16, "linewidths": 0.9}}
    for state, look in looks.items():
        trials = [trial for trial in scored if trial.state == state]
        if trials:
            places = [[trial.parameters[key] for trial in trials] for key in keys[:2]]
            drawn = axes.scatter(*places, c=_scores(trials), **scale, **look)
            dots = drawn if dots is None else dots
    if search.best is not None:
        x, y = (search.best.parameters[key] for key in keys[:2])
        axes.plot(x, y, "o", markersize=8, markerfacecolor="none", color=style.COLOURS[1], markeredgewidth=1.1)
    _axis(axes, "x", keys[0], search)
    _axis(axes, "y", keys[1], search)
    bar = figure.colorbar(dots, ax=axes, pad=0.02, aspect=30)
    style.score_axis(bar.ax.yaxis, f"validation {search.score.label}", search.score)
    return figure


def draw_slice(search: Search, keys: Sequence[str]) -> Figure:
    figure, axes = style.new_figure(2.1)
    for state, marker in (("finished", "o"), ("pruned", "x")):
        trials = [trial for trial in search.trials if trial.state == state and trial.score is not None]
        axes.plot([trial.parameters[keys[0]] for trial in trials], _scores(trials), marker, color=style.COLOURS[0])
    if search.best is not None:
        place = (search.best.parameters[keys[0]], search.best.score)
        axes.plot(*place, "o", markersize=8, markerfacecolor="none", color=style.COLOURS[1], markeredgewidth=1.1)
    _axis(axes, "x", keys[0], search)
    style.score_axis(axes.yaxis, f"validation {search.score.label}", search.score)
    return figure


def _scores(trials: Sequence[Trial]) -> list[float]:
    return [float(trial.score or 0.0) for trial in trials]


def _axis(axes: Axes, which: str, key: str, search: Search) -> None:
    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    if search.space[key].get("log"):
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        style.log_axis(axis)
    axis.set_label_text(NAMES.get(key, key_text(key)))


NAMES = {"optim.lr": "learning rate", "optim.warmup_ratio": "warmup (share of steps)"}
