"""What a score is worth: those of answers that know nothing of the text, on the same examples.

`most frequent label` answers always the label that the evaluated split has most often; `random label` draws every label
equally often, and its score is the one of the expected counts. Both exist for metrics of one label an example.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from research.common.errors import UserError
from research.metrics.base import BaseMetric
from research.report.groups import Grid, Group, runs_with_predictions
from research.tracking import predictions

MOST_LABELS = 200  # counting takes one pass a label


@dataclass(frozen=True)
class Baseline:
    """One score of answers that know nothing."""

    name: str
    group: Group  # one that is scored on the same examples
    split: str
    value: float


def baselines(grid: Grid) -> list[Baseline]:
    """The baselines of every data set and reported split whose metric has labels and whose predictions are there."""
    found = []
    for data_set in grid.data_sets:
        groups = [group for group in grid.groups if group.data_set == data_set and runs_with_predictions(group)]
        for split in dict.fromkeys(("validation", groups[0].split) if groups else ()):
            run = next((run for run in groups[0].runs if split in run.splits), None)
            table = run.predictions(split) if run is not None else None
            metric = predictions.known_metric(table) if table is not None else None
            if table is not None and metric is not None and metric.has_labels:
                found += [Baseline(n, groups[0], split, value) for n, value in _scores(table, metric, groups[0].metric)]
    return found


def _scores(table: pa.Table, metric: BaseMetric, name: str) -> Iterator[tuple[str, float]]:
    labels = list(metric.settings.get("labels") or ())
    if not 1 < len(labels) <= MOST_LABELS:
        return
    gold = Counter(table.column("gold").to_pylist())
    frequent = max(labels, key=lambda label: gold[label])
    try:
        counted = [metric.count(_answering(table, label), name) for label in labels]
    except UserError:  # no function of counts
        return
    sums = np.stack([counts.values.sum(axis=0) for counts in counted])  # (labels, K)
    score = counted[0].score
    yield f"most frequent label ({frequent})", float(score(sums[labels.index(frequent)]))
    yield "random label", float(score(sums.mean(axis=0)))


def _answering(table: pa.Table, label: str) -> pa.Table:
    """The table with one label as every prediction."""
    place = table.column_names.index("prediction")
    answers = pa.array([label] * table.num_rows, table.schema.field("prediction").type)
    constant = table.set_column(place, "prediction", answers)
    return constant.drop_columns(["probabilities"]) if "probabilities" in table.column_names else constant
