"""Figures of a search for print, in the style of all figures of this project; matplotlib is left as it was found.

best_so_far            the best score against what the search had cost until then
sweep-<name>           where in the space the good trials lie (learning rate by warmup)
importance             how much each parameter mattered, by PED-ANOVA
parallel_coordinates   every complete trial as a line through its parameters
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from research.report import records
from research.report.figures import style, sweep_map
from research.report.searches import read_search
from research.report.settings import key_text, value_text
from research.sweep.study import Search
from research.sweep.trials_table import ranked

MOST_LINES = 200  # of parallel coordinates: the best ones


def draw(search: Search) -> list[Path]:
    """Draw every figure the search has data for. Returns the PDFs; a PNG lies beside each."""
    with style.applied():
        return [style.save_figure(figure, search.folder, name) for name, figure in figures(search)]


def figures(search: Search) -> Iterator[tuple[str, Figure]]:
    """Names and figures; none before two trials are complete."""
    complete = ranked(search)
    if len(complete) < 2:
        return
    yield "best_so_far", best_so_far(search)
    runs = [records.read_record(folder) for folder in records.run_folders(search.folder / "trials")]
    if runs:
        for name, _, figure in sweep_map.of(read_search(search.folder, runs)):
            yield name, figure
    if importances := importance(search):
        yield "importance", importance_bars(importances)
    if len(search.sweep.space) >= 2:
        yield "parallel_coordinates", parallel_coordinates(search, complete[:MOST_LINES])


def best_so_far(search: Search) -> Figure:
    """The best score of the trials that had ended, against their device hours, pruned and failed ones included."""
    figure, axes = style.new_figure(2.1)
    ended = sorted(
        (t for t in search.trials() if t.state.is_finished()), key=lambda t: t.datetime_complete or datetime.max
    )
    hours = np.cumsum([t.user_attrs.get("device_hours", 0.0) for t in ended])
    minutes = hours[-1] < 1
    spent = hours * 60 if minutes else hours
    scores = np.array([t.value if t.state == TrialState.COMPLETE else math.nan for t in ended], dtype=np.float64)
    better = np.fmin if search.smaller_is_better else np.fmax
    axes.plot(spent, scores, "o", color=style.GREY, label="trial")
    axes.step(spent, better.accumulate(scores), where="post", color=style.COLOURS[0], label="best so far")
    axes.set(xlabel=f"device {'minutes' if minutes else 'hours'}", ylabel=_label(search))
    axes.legend()
    return figure


def _label(search: Search) -> str:
    return f"validation {search.metric.replace('_', ' ')}"


def importance(search: Search) -> dict[str, float]:
    """Share of each parameter in what makes trials good (PED-ANOVA, Watanabe et al. 2023); none where it is unclear."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            found = search.patience(
                lambda: get_param_importances(search.study, evaluator=PedAnovaImportanceEvaluator())
            )
    except (ValueError, RuntimeError, UserWarning):  # too few trials, or all alike
        return {}
    return found if len(found) >= 2 else {}


def importance_bars(importances: dict[str, float]) -> Figure:
    figure, axes = style.new_figure(0.6 + 0.22 * len(importances))
    style.name_rows(axes, list(importances))
    axes.barh(range(len(importances)), list(importances.values()), color=style.COLOURS[0], height=0.6)
    axes.set(xlabel="importance (PED-ANOVA)", xlim=(0, 1))
    return figure


def parallel_coordinates(search: Search, trials: Sequence[FrozenTrial]) -> Figure:
    """A line for each trial in the colour of its score, the best on top; each axis runs over the searched range."""
    figure, axes = style.new_figure(2.3)
    keys = list(search.sweep.space)
    scores = np.array([t.value for t in trials], dtype=np.float64)
    bright_is_good = style.SEQUENTIAL + ("_r" if search.smaller_is_better else "")
    colours = ScalarMappable(Normalize(scores.min(), scores.max() + 1e-12), bright_is_good)
    for trial, score in [*zip(trials, scores, strict=True)][::-1]:
        heights = [height(search, key, trial.params.get(key)) for key in keys]
        axes.plot(range(len(keys)), heights, color=colours.to_rgba(score), linewidth=0.7)
    axes.set_xticks(range(len(keys)), [key_text(key) for key in keys])
    axes.set_yticks([])
    axes.grid(visible=False)
    for place, key in enumerate(keys):
        axes.axvline(place, color=style.GREY, linewidth=0.5)
        _name_ends(axes, place, search, key)
    bar = figure.colorbar(colours, ax=axes, label=_label(search), pad=0.1, aspect=30)
    assert bar.solids is not None
    bar.solids.set(rasterized=False, edgecolor="face")  # vectors, not an image
    return figure


def _name_ends(axes: Axes, place: int, search: Search, key: str) -> None:
    """Write the ends of a range, or every choice, beside its axis."""
    parameter = search.sweep.space[key]
    values = [parameter.low, parameter.high] if parameter.choices is None else parameter.choices
    for value in values:
        at = (place, height(search, key, value))
        axes.annotate(value_text(value), at, textcoords="offset points", xytext=(2, -2), fontsize=6)


def height(search: Search, key: str, value: Any) -> float:
    """The place of a value on its axis, in [0, 1]; nan for a parameter the trial does not have."""
    parameter = search.sweep.space[key]
    if value is None and None not in (parameter.choices or ()):
        return math.nan
    if parameter.choices is not None:
        return parameter.choices.index(value) / (len(parameter.choices) - 1)
    low, high = float(parameter.low or 0.0), float(parameter.high or 0.0)
    if parameter.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return float((value - low) / (high - low))
