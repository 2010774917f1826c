"""What a score is worth: those of answers that know nothing of the text, on the same examples.

Each metric says in its `baselines` which there are; those of one label an example are here.

- `most frequent label`: always the label that the examples have most often.
- `random by class prior`: each label as often as the examples have it, at random; its scores are those of the expected
  counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from research.metrics.base import BaseMetric

Baselines = dict[str, dict[str, float]]  # baseline -> its scores

MOST_FREQUENT, RANDOM = "most frequent label", "random by class prior"
MOST_LABELS = 200  # counting takes one pass a label


def label_baselines(metric: BaseMetric, table: pa.Table) -> Baselines:
    """The baselines of one label an example; none for a single label, or very many."""
    labels = list(metric.settings.get("labels") or ())
    if not 1 < len(labels) <= MOST_LABELS:
        return {}
    gold = Counter(table.column("gold").to_pylist())
    frequent = max(labels, key=lambda label: gold[label])
    sums = {label: metric.sums(answering(table, [label] * table.num_rows)) for label in labels if gold[label]}
    prior = {label: gold[label] / table.num_rows for label in sums}
    expected = {block: sum(prior[label] * sums[label][block] for label in sums) for block in sums[frequent]}
    return {MOST_FREQUENT: metric.scores_of(sums[frequent]), RANDOM: metric.scores_of(expected)}


def answering(table: pa.Table, answers: Sequence[Any]) -> pa.Table:
    """The table with other predictions, and without what else the model said."""
    kept = [name for name in table.column_names if name not in ("probabilities", "confidence", "prediction")]
    given = pa.array(list(answers), table.schema.field("prediction").type)
    return table.select(kept).append_column("prediction", given)


def constant_answer(column: pa.ChunkedArray) -> str | None:
    """The answer that every example of the column `prediction` got; None where they differ, or there is but one.

    The tags of a sentence, or several answers, are recognised by what occurs in them.
    """
    answers = {_plain(answer) for answer in column.to_pylist()}
    return (next(iter(answers)) or "nothing") if len(answers) == 1 and len(column) > 1 else None


def _plain(answer: Any) -> str:
    return " ".join(sorted(set(map(str, answer)))) if isinstance(answer, list) else str(answer)
