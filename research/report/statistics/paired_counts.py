"""Counts of several runs, lined up by the ids of their examples, or summed over clusters of examples.

With counts a metric is recomputed on each resample, as a metric of corpora must be: the mean of the F1 of sentences
is not the F1 of the sentences.

Examples of one document are not independent. Where the data say which belong together (`data.cluster`), the counts of
a cluster are summed and the clusters are resampled: an example below then is a cluster.

Legend: N examples, K counts, R runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from research.common.errors import UserError
from research.tracking import predictions


@dataclass(frozen=True)
class PairedCounts:
    """Counts of several runs on the same examples, in the same order."""

    ids: list[str]  # N
    values: np.ndarray  # (R, N, K)
    score: Callable[[np.ndarray], np.ndarray]  # sums (..., K) -> metric (...)
    low: float = -np.inf  # the metric's range
    high: float = np.inf
    is_proportion: bool = False  # the share of examples that are right
    unit: str = "examples"  # or clusters

    @property
    def metrics(self) -> np.ndarray:
        """The metric of each run (R,)."""
        return self.score(self.values.sum(axis=1))


def paired(tables: Iterable[tuple[str, pa.Table]], metric: str, cluster: str | None = None) -> PairedCounts:
    """Counts of runs, given as name and predictions table one by one, lined up by the examples' ids.

    `cluster` names the column that says which examples belong together. Raises UserError where the ids or the gold
    answers of two runs differ, for a metric that has no counts, and for a cluster column that there is not.
    """
    rest = iter(tables)
    first_name, first = next(rest)
    ids, gold, shared = first.column("id").to_pylist(), first.column("gold"), predictions.metric(first)
    counts = shared.count(first, metric)
    values = [counts.values]
    for name, table in rest:
        table = in_order(table, ids, name, first_name)
        if not table.column("gold").equals(gold):
            raise UserError(f"{first_name} and {name} hold other gold answers for the same ids; they cannot be paired.")
        own = shared if table.schema.metadata == first.schema.metadata else predictions.metric(table)
        values.append(own.count(table, metric).values)
    kind = shared.score_named(metric)
    rows = PairedCounts(ids, np.stack(values), counts.score, kind.low, kind.high, kind.is_proportion)
    return rows if cluster is None else clustered(rows, first, first_name, cluster)


def clustered(counts: PairedCounts, table: pa.Table, name: str, column: str) -> PairedCounts:
    """The counts summed over the examples that share a value of a column; examples without a value stand alone."""
    if column not in table.column_names:
        held = ", ".join(each for each in table.column_names if each not in ("gold", "prediction"))
        raise UserError(f"data.cluster={column} is no column of the predictions of {name}; they have {held}.")
    values = table.column(column).to_pylist()
    keys = [f"alone {id}" if value is None else f"{value}" for id, value in zip(counts.ids, values, strict=True)]
    names, places = np.unique(np.array(keys, dtype=object).astype(str), return_inverse=True)
    sums = np.zeros((counts.values.shape[0], len(names), counts.values.shape[2]))
    for run, values_of_run in enumerate(counts.values):
        np.add.at(sums[run], places, values_of_run)
    return replace(counts, ids=names.tolist(), values=sums, unit="clusters")


def in_order(table: pa.Table, ids: Sequence[str], name: str, first_name: str) -> pa.Table:
    """The rows of a table in the order of `ids`. Raises UserError unless both hold the same ids."""
    own = table.column("id").to_pylist()
    if own == list(ids):
        return table
    alone = sorted(set(own) ^ set(ids))
    if alone or len(own) != len(ids):
        example = f", '{alone[0]}' occurs in one alone" if alone else ""
        raise UserError(
            f"{first_name} ({len(ids):,} examples) and {name} ({len(own):,}) cannot be paired: their ids "
            f"differ{example}."
        )
    return table.take(pc.index_in(pa.array(ids), table.column("id").combine_chunks()))
