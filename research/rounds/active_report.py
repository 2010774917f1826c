"""The report of a simulation: learning curves with bands, the area under them, and each strategy beside random."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from research.common.files import write_atomically
from research.common.text import signed
from research.report.figures import style
from research.rounds.active import RANDOM, Curve, Simulation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
LEGEND = (
    "Area: the mean height of the learning curve, its area by the trapezoidal rule divided by the examples it spans. "
    "Last: the score after the last round. Against random: the difference of the areas, paired by seed, with its "
    "95 % interval (Student's t). In points; mean and standard deviation over seeds. Each round trains from the "
    "pretrained model; the first sample is the same for all strategies of a seed."
)


def area(sizes: Sequence[int], scores: Sequence[float] | Floats) -> float:
    """The area under a curve by the trapezoidal rule, divided by its width; of a single point, its height."""
    return float(np.trapezoid(scores, sizes) / (sizes[-1] - sizes[0])) if len(sizes) > 1 else float(scores[0])


def write_report(simulation: Simulation, score: str, curves: Sequence[Curve]) -> str:
    """Write `active.json`, `active.md` and the figure. Returns the table in Markdown."""
    by_strategy = {
        name: [curve for curve in curves if curve.strategy == name]
        for name in dict.fromkeys(c.strategy for c in curves)
    }
    folder, sizes = simulation.output, simulation.sizes
    table = summary_table(sizes, by_strategy)
    with style.applied():
        style.save_figure(drawn(sizes, score, by_strategy), folder, "active")
    pages = [f"# {folder.name}", f"Score: {score}. {LEGEND}", table, points_table(sizes, by_strategy)]
    content = {
        "score": score,
        "labelled": sizes,
        "curves": [
            {"strategy": each.strategy, "seed": each.seed, "scores": each.scores, "area": area(sizes, each.scores),
             "runs": list(map(str, each.runs))}
            for each in curves
        ],
    }  # fmt: skip
    for name, text in (("active.json", json.dumps(content, indent=1)), ("active.md", "\n\n".join(pages) + "\n")):
        with write_atomically(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return table


def summary_table(sizes: Sequence[int], by_strategy: Mapping[str, Sequence[Curve]]) -> str:
    """A row for each strategy, that with the largest area first."""
    areas = {name: areas_of(sizes, curves) for name, curves in by_strategy.items()}
    lines = ["| strategy | seeds | area | last | against random |", "|---|---|---|---|---|"]
    for name in sorted(areas, key=lambda name: -areas[name].mean()):
        last = np.array([curve.scores[-1] for curve in by_strategy[name]])
        beside = "–" if name == RANDOM or RANDOM not in areas else with_interval(areas[name] - areas[RANDOM])
        lines.append(f"| {name} | {len(last)} | {spread(areas[name])} | {spread(last)} | {beside} |")
    return "\n".join(lines)


def points_table(sizes: Sequence[int], by_strategy: Mapping[str, Sequence[Curve]]) -> str:
    """The scores at each number of labelled examples."""
    lines = [f"| labelled | {' | '.join(by_strategy)} |", "|---" * (len(by_strategy) + 1) + "|"]
    for place, size in enumerate(sizes):
        cells = [spread(np.array([curve.scores[place] for curve in curves])) for curves in by_strategy.values()]
        lines.append(f"| {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def areas_of(sizes: Sequence[int], curves: Sequence[Curve]) -> Floats:
    return np.array([area(sizes, curve.scores) for curve in curves])


def spread(values: Floats) -> str:
    """`81.2 ± 1.3`, in points; one value has no deviation."""
    mean = f"{100 * values.mean():z.1f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * values.std(ddof=1):.1f}"


def with_interval(differences: Floats) -> str:
    """`+1.2 (-0.3 to 2.7)`, in points; one value has no interval."""
    mean = 100 * differences.mean()
    if len(differences) < 2:
        return signed(mean, 1)
    half = 100 * float(stats.t.ppf(0.975, len(differences) - 1)) * differences.std(ddof=1) / len(differences) ** 0.5
    return f"{signed(mean, 1)} ({mean - half:z.1f} to {mean + half:z.1f})"


def drawn(sizes: Sequence[int], score: str, by_strategy: Mapping[str, Sequence[Curve]]) -> Figure:
    """A line for each strategy; its band is one standard deviation over seeds on either side."""
    figure, axes = style.new_figure(2.2)
    for i, (name, curves) in enumerate(by_strategy.items()):
        scores, look = np.array([curve.scores for curve in curves]), style.look(i)
        mean = scores.mean(axis=0)
        axes.plot(sizes, mean, label=name, **look)
        if len(scores) > 1:
            band = scores.std(axis=0, ddof=1)
            axes.fill_between(sizes, mean - band, mean + band, color=look["color"], alpha=0.12, linewidth=0)
    axes.set_xticks(sizes if len(sizes) <= 8 else sizes[:: -(-len(sizes) // 8)])
    axes.set_xlabel("labelled examples")
    axes.set_ylabel(f"{score.replace('_', ' ')} (%)")
    style.per_cent(axes.yaxis)
    style.legend_below(figure, axes)
    return figure
