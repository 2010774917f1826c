"""Scores of next items: hit rate, nDCG and MRR over the full ranking of the catalogue, none of it sampled.

Sampled candidates rank systems in another order than all items do (Krichene & Rendle 2020).
Legend: N examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from research.metrics.base import BaseMetric, Blocks, Formula, ratio
from research.metrics.baselines import Baselines
from research.metrics.examples import Floats
from research.metrics.score import Score
from research.metrics.slicing import Cut, value_cuts

CUTS = (1, 5, 10)


class Metric(BaseMetric):
    """Means over examples, of which each has one right item.

    The columns are `rank`, the item's place (from 1) in the catalogue without what the user had before,
    `popularity_rank`, its place by frequency in training, and `cold`: it does not occur there.
    """

    scores = (
        Score("ndcg_10", "nDCG@10"),
        *(Score(f"hit_{k}", f"hit rate@{k}") for k in CUTS),
        Score("mrr", "MRR"),
    )
    texts = ("history",)
    lengths = ("history",)
    columns = ("item", "rank", "popularity_rank", "cold", "scores")
    signature = "recommendation|full ranking|seen items left out"
    sentence = "hit rate, nDCG@10 and MRR over the full ranking of all items that the user had not seen"

    def widths(self) -> dict[str, int]:
        return {score.name: 2 for score in self.scores}

    def counts(self, table: pa.Table) -> Blocks:
        """By score: its value for the example, 1."""
        return counts_of(table.column("rank").to_pylist())

    def formula(self, name: str) -> Formula | None:
        return Formula((name,), ratio) if name in self.widths() else None

    def reported(self, sums: Blocks) -> list[str]:
        return [score.name for score in self.scores]

    def baselines(self, table: pa.Table, train: pa.Table | None = None) -> Baselines:
        """The items in the order of their frequency in training."""
        place = table.column_names.index("rank")
        return {"popularity": self.score(table.set_column(place, "rank", table.column("popularity_rank")))}

    def example_scores(self, table: pa.Table) -> Floats:
        """The reciprocal rank."""
        return 1 / np.array(table.column("rank").to_pylist(), dtype=np.float64)

    def own_cuts(self, table: pa.Table) -> Iterator[Cut]:
        names = ["cold" if cold else "known" for cold in table.column("cold").to_pylist()]
        yield from value_cuts("item in training", names)


def counts_of(ranks: Sequence[int]) -> dict[str, Floats]:
    """Each score's value and a 1, (N, 2), from places from 1."""
    places = np.array(ranks, dtype=np.float64)  # (N,)
    values = {
        "ndcg_10": np.where(places <= 10, 1 / np.log2(places + 1), 0.0),
        **{f"hit_{k}": (places <= k).astype(np.float64) for k in CUTS},
        "mrr": 1 / places,
    }
    return {name: np.column_stack([value, np.ones(len(places))]) for name, value in values.items()}
