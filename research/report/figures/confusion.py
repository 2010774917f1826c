"""Confusion matrices: what each class is taken for, in shares of its examples; for NER, what each entity type is.

Legend: C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from research.metrics.base import BaseMetric
from research.report.figures import style
from research.report.groups import Grid, best_group, runs_with_predictions
from research.report.records import Record
from research.report.tables.cells import file_name
from research.tracking.predictions import known_metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLACE = 80  # on the page
MOST_CLASSES = 14
MOST_COUNTED = 8  # classes of a matrix with counts in its cells
OTHERS, NONE = "(others)", "none"
Counts = Counter[tuple[str, str]]


def figures(grid: Grid, records: Sequence[Record]) -> Iterator[tuple[str, str, Figure]]:
    for data_set in grid.data_sets:
        group = best_group(grid, data_set)
        runs = runs_with_predictions(group) if group is not None else []
        if group is None or not runs:
            continue
        tables = [run.predictions(group.split) for run in runs]
        metric = known_metric(tables[0])
        if metric is None or not (counts := pooled_confusion(metric, tables)):
            continue
        labels, matrix = matrix_of(counts)
        caption = (
            f"What the {metric.confused} of each gold class of {data_set} ({group.split}) are predicted to be, in per "
            f"cent of the class: {group.system}, {_runs(len(runs))}. In brackets counts."
            + (f" The {len(labels) - 1} classes with the most mistakes." if OTHERS in labels else "")
        )
        yield f"confusion-{file_name(data_set)}", caption, draw_confusion(labels, matrix, f"{data_set}, {group.split}")


def _runs(count: int) -> str:
    return "one run" if count == 1 else f"{count} runs pooled"


def pooled_confusion(metric: BaseMetric, tables: Sequence[pa.Table]) -> Counts:
    """(gold, predicted) -> count over all runs; empty for a task without classes."""
    return sum((metric.confusion(table) or Counter() for table in tables), Counter())


def matrix_of(counts: Counts) -> tuple[list[str], np.ndarray]:
    """Labels and counts (C, C), rows gold; of many classes those with most mistakes, the others as one."""
    labels = sorted({label for pair in counts for label in pair}, key=lambda label: (label == NONE, label))
    if len(labels) > MOST_CLASSES:
        wrong: Counter[str] = Counter()
        for (gold, predicted), count in counts.items():
            if gold != predicted:
                wrong[gold] += count
                wrong[predicted] += count
        kept = {label for label, _ in wrong.most_common(MOST_CLASSES)}
        labels = [*(label for label in labels if label in kept), OTHERS]
    place = {label: i for i, label in enumerate(labels)}
    matrix = np.zeros((len(labels), len(labels)), dtype=int)
    for (gold, predicted), count in counts.items():
        matrix[place.get(gold, -1), place.get(predicted, -1)] += count
    return labels, matrix


def draw_confusion(labels: Sequence[str], matrix: np.ndarray, title: str = "") -> Figure:
    """The matrix in shares of the gold class, its size beside its name; in a small one the counts in the cells too."""
    C = len(labels)
    sums = matrix.sum(1, keepdims=True)
    shares = np.divide(100.0 * matrix, sums, out=np.zeros(matrix.shape), where=sums > 0)
    figure, axes = style.new_figure(min(3.4, 1.5 + 0.26 * C))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    size = 7 if C <= 8 else 5.5
    for row in range(C):
        for column in range(C):
            share = shares[row, column]
            if share >= 0.5 or (row == column and labels[row] != NONE):
                colour = "white" if share > 55 else "black"
                text = f"{share:.0f}" + (f"\n({matrix[row, column]:,})" if C <= MOST_COUNTED else "")
                axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
    short = [label if len(label) <= 20 else f"{label[:10]}…{label[-9:]}" for label in labels]
    sized = [f"{label} ({total:,})" for label, total in zip(short, sums[:, 0], strict=True)]
    slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, short)) * C > 36 else {}
    axes.set_xticks(range(C), short, fontsize=size, **slanted)
    axes.set_yticks(range(C), sized, fontsize=size)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("gold")
    axes.set_title(title, fontsize=8)
    return figure
