"""The report of a sequence: ACC, BWT, FWT and forgetting of each strategy with intervals, matrices, a figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from research.common.files import write_atomically
from research.common.text import counted
from research.continual.learn import Learned
from research.continual.matrix import Floats, figures_of
from research.report.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = ("ACC", "BWT", "FWT", "forgetting")
LEGEND = (
    "ACC: mean score on all tasks after the last; BWT: what later tasks changed of the earlier ones' scores; FWT: what "
    "earlier tasks gave a task before it was learned, against an untrained head; forgetting: below the best a task "
    "ever had. In points (per cent); mean and 95 % interval (Student's t) over seeds and orders. Each task has a head "
    "of its own and the task is known in evaluation: task-incremental (van de Ven & Tolias 2019)."
)
FIGURE = (
    "![Mean score on the tasks learned so far](continual.png)\n\nThe mean score on the tasks learned so far, over "
    "seeds and orders; the band is one standard deviation."
)


def write_report(found: Sequence[Learned], folder: Path) -> str:
    """Write `continual.json`, `continual.md` and the figure into a folder. Returns the table in Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    by_strategy: dict[str, list[Learned]] = {}
    for each in found:
        by_strategy.setdefault(each.strategy, []).append(each)
    table = summary_table(by_strategy)
    matrices = [f"## {name}\n\n{matrix_table(name, runs)}" for name, runs in by_strategy.items()]
    pages = [f"# {folder.name}", LEGEND, table, FIGURE, *matrices]
    with style.applied():
        style.save_figure(drawn(by_strategy), folder, "continual")
    content = [
        {"strategy": each.strategy, "order": each.order, "seed": each.seed, "R": each.R.tolist(), "b": each.b.tolist(),
         "runs": [str(run) for run in each.runs], **figures_of(each.R, each.b)}
        for each in found
    ]  # fmt: skip
    for name, text in (("continual.json", json.dumps(content, indent=1)), ("continual.md", "\n\n".join(pages) + "\n")):
        with write_atomically(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return table


def summary_table(by_strategy: Mapping[str, Sequence[Learned]]) -> str:
    """A row for each strategy."""
    lines = [f"| strategy | runs | {' | '.join(NAMES)} |", "|---" * (len(NAMES) + 2) + "|"]
    for name, runs in by_strategy.items():
        values = [figures_of(each.R, each.b) for each in runs]
        shown = [with_interval(np.array([each[figure] for each in values])) for figure in NAMES]
        if name == "joint":  # it has no order: nothing comes before or after
            shown[1:] = ["–"] * 3
        lines.append(f"| {name} | {len(runs)} | {' | '.join(shown)} |")
    return "\n".join(lines)


def with_interval(values: Floats) -> str:
    """`81.2 (79.0 to 83.4)`, in per cent; one value has no interval."""
    mean = 100 * values.mean()
    if len(values) < 2:
        return f"{mean:z.1f}"
    half = 100 * float(stats.t.ppf(0.975, len(values) - 1)) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{mean:z.1f} ({mean - half:z.1f} to {mean + half:z.1f})"


def matrix_table(name: str, runs: Sequence[Learned]) -> str:
    """The mean over seeds of R for each order; of joint training its one row."""
    parts = []
    for order in dict.fromkeys(each.order for each in runs):
        own = [each for each in runs if each.order == order]
        R, b = np.mean([each.R for each in own], axis=0), np.mean([each.b for each in own], axis=0)
        after = [[f"after {task}", *row] for task, row in zip(order, R, strict=True)]
        rows = [["untrained", *b], *(after if name != "joint" else [["together", *R[-1]]])]
        lines = [f"| mean of {counted(len(own), 'seed')} | {' | '.join(order)} |", "|---" * (len(order) + 1) + "|"]
        lines += [f"| {row[0]} | {' | '.join(f'{100 * float(x):z.1f}' for x in row[1:])} |" for row in rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def drawn(by_strategy: Mapping[str, Sequence[Learned]]) -> Figure:
    """The mean score on the tasks learned so far, after each of them: a line for each strategy."""
    figure, axes = style.new_figure(2.2)
    for i, (name, runs) in enumerate(by_strategy.items()):
        curves = np.array([[each.R[k, : k + 1].mean() for k in range(len(each.R))] for each in runs])  # (runs, T)
        places = np.arange(1, curves.shape[1] + 1)
        look = style.look(i)
        if name == "joint":
            axes.plot(places[-1:], curves[:, -1:].mean(axis=0), label=name, **look)
            continue
        axes.plot(places, curves.mean(axis=0), label=name, **look)
        if len(curves) > 1:
            spread = curves.std(axis=0, ddof=1)
            low, high = curves.mean(axis=0) - spread, curves.mean(axis=0) + spread
            axes.fill_between(places, low, high, color=look["color"], alpha=0.12, linewidth=0)
    axes.set_xticks(range(1, 1 + max(len(each.R) for runs in by_strategy.values() for each in runs)))
    axes.set_xlabel("tasks learned")
    axes.set_ylabel("mean score (%)")
    style.per_cent(axes.yaxis)
    style.legend_below(figure, axes)
    return figure
