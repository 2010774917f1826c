"""Counts of several runs, lined up by the ids of their examples.

With counts a metric is recomputed on each resample, as a metric of corpora must be: the mean of the F1 of sentences
is not the F1 of the sentences.

Legend: N examples, K counts, R runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

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

    @property
    def metrics(self) -> np.ndarray:
        """The metric of each run (R,)."""
        return self.score(self.values.sum(axis=1))


def paired(tables: Iterable[tuple[str, pa.Table]], metric: str) -> PairedCounts:
    """Counts of runs, given as name and predictions table one by one, lined up by the examples' ids.

    Raises UserError where the ids or the gold answers of two runs differ, and for a metric that has no counts.
    """
    rest = iter(tables)
    first_name, first = next(rest)
    ids, gold, counts = (
        first.column("id").to_pylist(),
        first.column("gold"),
        predictions.metric(first).count(first, metric),
    )
    values = [counts.values]
    for name, table in rest:
        table = in_order(table, ids, name, first_name)
        if not table.column("gold").equals(gold):
            raise UserError(f"{first_name} and {name} hold other gold answers for the same ids; they cannot be paired.")
        values.append(predictions.metric(table).count(table, metric).values)
    return PairedCounts(ids, np.stack(values), counts.score)


def in_order(table: pa.Table, ids: Sequence[str], name: str, first_name: str) -> pa.Table:
    """The rows of a table in the order of `ids`. Raises UserError unless both hold the same ids."""
    own = table.column("id").to_pylist()
    if own == list(ids):
        return table
    alone = sorted(set(own) ^ set(ids))
    if alone or len(own) != len(ids):
        example = f", '{alone[0]}' stands in one alone" if alone else ""
        raise UserError(
            f"{first_name} ({len(ids):,} examples) and {name} ({len(own):,}) cannot be paired: their ids "
            f"differ{example}."
        )
    return table.take(pc.index_in(pa.array(ids), table.column("id").combine_chunks()))
