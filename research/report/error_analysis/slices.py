"""Scores of parts of a test set: short and long texts, each label, rare entities, any column of the data.

The metric says how its examples are cut (`Metric.parts`). Intervals are 95 %. A share of examples has Wilson's interval
(1927); as the runs of one system share their examples, the number of examples counts, not that of predictions. Any
other score (F1, recall of entities) has the percentile bootstrap over the examples of the slice, all runs seeing the
same resample.

Legend: R runs, K counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from research.metrics.slicing import Part
from research.report.statistics.paired_counts import PairedCounts, in_order
from research.report.statistics.resampling import bootstrap
from research.tracking import predictions

RESAMPLES = 1000
LEAST_EXAMPLES = 5  # of a slice that is shown


@dataclass(frozen=True)
class Slice:
    """A part of a test set and the mean score of a system's runs on it."""

    by: str
    value: str
    size: int  # examples, or entities
    metric: str
    score: float
    low: float
    high: float


def score_slices(tables: Sequence[pa.Table], train: pa.Table | None = None) -> list[Slice]:
    """The slices of one system from the tables of its runs on the same examples.

    `train`: predictions on the training split, which tell what entities were seen in training.
    """
    ids = tables[0].column("id").to_pylist()
    aligned = [in_order(table, ids, f"run {i}", "run 0") for i, table in enumerate(tables)]
    parts = predictions.metric(aligned[0]).parts(aligned, train)
    return [_slice(part) for part in parts if part.size >= LEAST_EXAMPLES]


def _slice(part: Part) -> Slice:
    """The score on the examples of a part, and its interval."""
    counts = PairedCounts([str(i) for i in range(part.values.shape[1])], part.values, part.score)
    score = float(counts.metrics.mean())
    low, high = wilson(score, part.size) if part.is_proportion else _percentiles(counts)
    return Slice(part.by, part.value, part.size, part.score_name, score, low, high)


def wilson(share: float, size: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `size` examples."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(share * size, size, method="wilson")
    return float(low), float(high)


def _percentiles(part: PairedCounts) -> tuple[float, float]:
    replicates = bootstrap(part, RESAMPLES).mean(1)
    low, high = np.quantile(replicates, (0.025, 0.975))
    return float(low), float(high)
