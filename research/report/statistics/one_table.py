"""Intervals of the scores of one predictions table, over its examples."""

from __future__ import annotations

import pyarrow as pa

from research.report.statistics.intervals import Interval, over_both
from research.report.statistics.paired_counts import PairedCounts, clustered
from research.report.statistics.resampling import bootstrap
from research.tracking import predictions


def intervals(table: pa.Table, cluster: str | None = None) -> dict[str, Interval]:
    """95 % intervals of the metric's scores that are functions of counts, as a report of a single run has them.

    `cluster`: a column that says which examples belong together. Raises UserError where the table lacks it.
    """
    metric = predictions.metric(table, own_files=True)
    ids, found = table.column("id").to_pylist(), {}
    for score in metric.scores:
        if metric.formula(score.name) is not None:
            own = metric.count(table, score.name)
            counts = PairedCounts(ids, own.values[None], own.score, score.low, score.high, score.is_proportion)
            counts = clustered(counts, table, "the file", cluster) if cluster else counts
            found[score.name] = over_both(counts, (1,), bootstrap(counts)).interval()
    return found
