"""What a score is worth: those of answers that know nothing of the text, on the same examples.

`most frequent label` answers always the label that the split has most often; `random label` draws every label equally
often, and its scores are those of the expected counts. Both exist for metrics of one label an example.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from research.metrics.base import BaseMetric

MOST_FREQUENT, RANDOM = "most frequent label", "random label"
MOST_LABELS = 200  # counting takes one pass a label


def baseline_scores(table: pa.Table, metric: BaseMetric) -> dict[str, dict[str, float]]:
    """Baseline -> its scores on the examples of a predictions table; empty for a metric without labels."""
    labels = list(metric.settings.get("labels") or ())
    if not metric.has_labels or not 1 < len(labels) <= MOST_LABELS:
        return {}
    gold = Counter(table.column("gold").to_pylist())
    frequent = max(labels, key=lambda label: gold[label])
    sums = {label: metric.sums(_answering(table, label)) for label in labels}
    expected = {block: np.mean([each[block] for each in sums.values()], axis=0) for block in sums[frequent]}
    return {MOST_FREQUENT: metric.scores_of(sums[frequent]), RANDOM: metric.scores_of(expected)}


def _answering(table: pa.Table, label: str) -> pa.Table:
    """The table with one label as every prediction, and without what else the model said."""
    answers = pa.array([label] * table.num_rows, table.schema.field("prediction").type)
    kept = [name for name in table.column_names if name not in ("probabilities", "confidence", "prediction")]
    return table.select(kept).append_column("prediction", answers)


def constant_answer(column: pa.ChunkedArray) -> str | None:
    """The answer that every example of the column `prediction` got; None where they differ, or there is but one.

    The tags of a sentence, or several answers, are told by what occurs in them.
    """
    answers = {_plain(answer) for answer in column.to_pylist()}
    return (next(iter(answers)) or "nothing") if len(answers) == 1 and len(column) > 1 else None


def _plain(answer: Any) -> str:
    return " ".join(sorted(set(map(str, answer)))) if isinstance(answer, list) else str(answer)
