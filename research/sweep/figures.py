"""Figures of a search for print: vector PDFs, drawn without touching matplotlib's global state.

best_so_far.pdf            the best score against what the search had cost until then
<x>_by_<y>.pdf             where the good scores lie: learning rate by warmup, or the first two ranges
importance.pdf             how much each parameter mattered, by PED-ANOVA
parallel_coordinates.pdf   every complete trial as a line through its parameters
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from research.run import written_whole
from research.sweep.results import ranked
from research.sweep.study import Search

STYLE: Any = {
    "font.size": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text
}
WIDTH_INCHES, HEIGHT_INCHES = 3.3, 2.4  # one column of a paper
MOST_LINES = 200  # of parallel coordinates: the best ones


def draw(search: Search) -> list[Path]:
    """Draw every figure the search has data for. Returns the files."""
    complete = ranked(search)
    if len(complete) < 2:
        return []
    ranges = [key for key, p in search.sweep.space.items() if p.choices is None]
    drawings: dict[str, Callable[[Axes], None]] = {"best_so_far": lambda axes: best_so_far(axes, search)}
    if len(ranges) >= 2:
        x, y = map_keys(ranges)
        name = f"{x.split('.')[-1]}_by_{y.split('.')[-1]}"
        drawings[name] = lambda axes: score_map(axes, search, x, y)
    if importances := importance(search):
        drawings["importance"] = lambda axes: importance_bars(axes, importances)
    if len(search.sweep.space) >= 2:
        drawings["parallel_coordinates"] = lambda axes: parallel_coordinates(axes, search, complete[:MOST_LINES])
    return [save(search.folder / f"{name}.pdf", drawing) for name, drawing in drawings.items()]


def save(path: Path, drawing: Callable[[Axes], None]) -> Path:
    """Draw into a figure of its own and write it whole."""
    with matplotlib.rc_context(STYLE), written_whole(path) as temporary:
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
        drawing(figure.subplots())
        figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
    return path


def map_keys(ranges: Sequence[str]) -> tuple[str, str]:
    """Learning rate and warmup where both are searched, else the first two ranges."""
    warmup = [key for key in ranges if "warmup" in key]
    if "optim.lr" in ranges and warmup:
        return "optim.lr", warmup[0]
    return ranges[0], ranges[1]


def best_so_far(axes: Axes, search: Search) -> None:
    """The best score of the trials that had ended, against their device hours, pruned and failed ones included."""
    ended = sorted(
        (t for t in search.trials() if t.state.is_finished()), key=lambda t: t.datetime_complete or datetime.max
    )
    hours = np.cumsum([t.user_attrs.get("device_hours", 0.0) for t in ended])
    minutes = hours[-1] < 1
    spent = hours * 60 if minutes else hours
    scores = np.array([t.value if t.state == TrialState.COMPLETE else math.nan for t in ended], dtype=np.float64)
    better = np.fmin if search.metric == "loss" else np.fmax
    axes.plot(spent, scores, ".", color="0.6", markersize=4, label="trial")
    axes.step(spent, better.accumulate(scores), where="post", color="black", linewidth=1, label="best so far")
    axes.set(xlabel=f"device {'minutes' if minutes else 'hours'}", ylabel=f"validation {search.metric}")
    axes.legend(loc="lower right" if search.metric != "loss" else "upper right")


def score_map(axes: Axes, search: Search, x: str, y: str) -> None:
    """Each trial where its two parameters are; pruned ones hollow, failed ones crossed."""
    styles: dict[TrialState, Any] = {
        TrialState.PRUNED: {"marker": "o", "facecolors": "none", "edgecolors": "0.5", "label": "pruned"},
        TrialState.FAIL: {"marker": "x", "c": "tab:red", "label": "failed"},
        TrialState.COMPLETE: {"marker": "o", "edgecolors": "black"},
    }
    for state, style in styles.items():
        trials = [t for t in search.trials() if t.state == state and x in t.params and y in t.params]
        if not trials:
            continue
        scores: Any = {"c": [t.value for t in trials], "cmap": "viridis"} if state == TrialState.COMPLETE else {}
        xs, ys = ([t.params[key] for t in trials] for key in (x, y))
        drawn = axes.scatter(xs, ys, s=18, linewidths=0.5, **style, **scores)
        if scores:
            colour_bar(axes, drawn, search)
    axes.set(xlabel=x, ylabel=y)
    scale = {True: "log", False: "linear"}
    axes.set(xscale=scale[search.sweep.space[x].log], yscale=scale[search.sweep.space[y].log])
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize=6)


def importance(search: Search) -> dict[str, float]:
    """Share of each parameter in what makes trials good (PED-ANOVA, Watanabe et al. 2023); none where it is unclear."""
    try:
        found = search.patience(lambda: get_param_importances(search.study, evaluator=PedAnovaImportanceEvaluator()))
    except (ValueError, RuntimeError):  # too few trials, or all alike
        return {}
    return found if len(found) >= 2 else {}


def importance_bars(axes: Axes, importances: dict[str, float]) -> None:
    names = list(importances)[::-1]
    axes.barh(names, [importances[name] for name in names], color="0.4")
    axes.set(xlabel="importance (PED-ANOVA)", xlim=(0, 1))


def parallel_coordinates(axes: Axes, search: Search, trials: Sequence[FrozenTrial]) -> None:
    """A line for each trial, the darker the better; each axis runs over the searched range."""
    keys = list(search.sweep.space)
    scores = np.array([t.value for t in trials], dtype=np.float64)
    spread = np.ptp(scores) or 1.0
    colour = matplotlib.colormaps["viridis"]
    for trial, score in sorted(zip(trials, scores, strict=True), key=lambda pair: pair[1]):
        heights = [height(search, key, trial.params.get(key)) for key in keys]
        axes.plot(range(len(keys)), heights, color=colour((score - scores.min()) / spread), linewidth=0.7, alpha=0.8)
    axes.set_xticks(range(len(keys)), [key.split(".")[-1] for key in keys])
    axes.set_yticks([])
    for place, key in enumerate(keys):
        axes.axvline(place, color="0.3", linewidth=0.5)
        for value, at in ends(search, key):
            axes.annotate(value, (place, at), textcoords="offset points", xytext=(2, -2), fontsize=6)
    limits = matplotlib.colors.Normalize(scores.min(), scores.min() + spread)
    bar = matplotlib.cm.ScalarMappable(limits, colour)
    colour_bar(axes, bar, search)


def colour_bar(axes: Axes, colours: Any, search: Search) -> None:
    """Which colour is which score, as vectors, not as an image."""
    bar = axes.figure.colorbar(colours, ax=axes, label=f"validation {search.metric}")
    assert bar.solids is not None
    bar.solids.set(rasterized=False, edgecolor="face")


def height(search: Search, key: str, value: Any) -> float:
    """Where a value stands on its axis, in [0, 1]; nan for a parameter the trial does not have."""
    parameter = search.sweep.space[key]
    if value is None and None not in (parameter.choices or ()):
        return math.nan
    if parameter.choices is not None:
        return parameter.choices.index(value) / (len(parameter.choices) - 1)
    low, high = float(parameter.low or 0.0), float(parameter.high or 0.0)
    if parameter.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def ends(search: Search, key: str) -> list[tuple[str, float]]:
    """What stands at an axis: the ends of a range, or every choice."""
    parameter = search.sweep.space[key]
    values = [parameter.low, parameter.high] if parameter.choices is None else parameter.choices
    return [(f"{v:g}" if isinstance(v, float) else str(v), height(search, key, v)) for v in values]
