"""Scores of ranked documents: MRR, nDCG, recall and MAP by the definitions of trec_eval.

Legend: N queries (rows of the predictions file).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from research.metrics.base import BaseMetric, Blocks, Formula
from research.metrics.examples import NOTHING, Floats
from research.metrics.score import Score

CUTS = (1, 5, 10)


class Metric(BaseMetric):
    """Means over queries; of rows that repeat a query each counts as its share.

    The columns are `ranks`, the places (from 1) of the relevant documents among all, ascending, and `repeats`, the
    number of rows with this query; `missed`, where there is such a column, are relevant documents that were not ranked.
    `mrr` is the reciprocal rank of the first relevant document, `ndcg_k` the discounted gain of the first k in that of
    the ideal order, `recall_k` the share of the relevant documents among the first k, `map` the mean average precision.
    With `settings["dimensions"]`, `ranks_64` are the places by the first 64 numbers of each vector, and `mrr_of_64` is
    their MRR.
    """

    scores = (
        Score("mrr", "MRR"),
        *(Score(f"ndcg_{k}", f"nDCG@{k}") for k in CUTS),
        *(Score(f"recall_{k}", f"recall@{k}") for k in CUTS),
        Score("map", "MAP"),
    )
    texts = ("query",)
    lengths = ("query", "document")
    columns = ("document", "negatives", "relevant", "ranks", "repeats", "similarity", "documents", "missed", "scores")

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.sizes = {f"mrr_of_{size}": f"ranks_{size}" for size in settings.get("dimensions", ())}  # score -> column
        self.scores = (*Metric.scores, *scores_of_sizes(settings.get("dimensions", ())))
        self.columns = (*Metric.columns, *self.sizes.values())  # type: ignore[misc, assignment]

    @classmethod
    def scores_with(cls, keys: Any) -> Sequence[Score]:
        return (*cls.scores, *scores_of_sizes(getattr(keys, "dimensions", ())))

    @property
    def ranked(self) -> str:
        """What is ranked for each query."""
        return str(self.settings.get("ranked", "all documents"))

    @property
    def signature(self) -> str:
        return f"retrieval|trec_eval|{self.ranked} ranked"

    @property
    def sentence(self) -> str:
        of = f"{self.ranked} of the split" if self.ranked.startswith("all") else f"the {self.ranked} of each query"
        return f"MRR, nDCG, recall and MAP by the definitions of trec_eval, over {of}"

    def widths(self) -> dict[str, int]:
        return {score.name: 2 for score in self.scores}

    def counts(self, table: pa.Table) -> Blocks:
        """By score: its value for the query in the query's weight, the weight."""
        weights = 1 / np.array(table.column("repeats").to_pylist(), dtype=np.float64)
        columns = (table.column("ranks").to_pylist(), missed_of(table))
        values = [scores_of_ranks(ranks, missed) for ranks, missed in zip(*columns, strict=True)]
        for name, column in self.sizes.items():
            for value, ranks in zip(values, table.column(column).to_pylist(), strict=True):
                value[name] = 1 / min(ranks)
        return {
            score.name: np.column_stack([weights * np.array([value[score.name] for value in values]), weights])
            for score in self.scores
        }

    def formula(self, name: str) -> Formula | None:
        return Formula((name,), mean) if name in self.widths() else None

    def reported(self, sums: Blocks) -> list[str]:
        return [score.name for score in self.scores]

    def example_scores(self, table: pa.Table) -> Floats:
        """The reciprocal rank of the first relevant document."""
        return np.array([1 / min(ranks) if ranks else 0.0 for ranks in table.column("ranks").to_pylist()])

    def shown(self, table: pa.Table) -> tuple[list[str], list[str]]:
        """The relevant documents, and what is ranked first, by their texts where the rows have them."""
        rows = table.select([n for n in ("id", "document", "documents") if n in table.column_names]).to_pylist()
        named = {row["id"]: row["document"] for row in rows if "document" in row}
        sides = (table.column(name).to_pylist() for name in ("gold", "prediction"))
        gold, found = [], []
        for row, relevant, ranked in zip(rows, *sides, strict=True):
            texts = dict(enumerate(row.get("documents") or ())) or named
            gold.append(" | ".join(str(texts.get(each, each)) for each in relevant or ()) or NOTHING)
            found.append(str(texts.get(ranked[0], ranked[0])) if ranked else NOTHING)
        return gold, found


def scores_of_sizes(sizes: Sequence[int]) -> tuple[Score, ...]:
    """The scores of rankings by the first numbers of each vector."""
    return tuple(Score(f"mrr_of_{size}", f"MRR of {size} numbers") for size in dict.fromkeys(sizes))


def mean(sums: Floats) -> Floats:
    """First sum over second; weights may add up to less than 1."""
    return np.asarray(sums[..., 0] / np.where(sums[..., 1] > 0, sums[..., 1], 1))


def missed_of(table: pa.Table) -> list[int]:
    """Relevant documents of each row that were not ranked."""
    return table.column("missed").to_pylist() if "missed" in table.column_names else [0] * table.num_rows


def scores_of_ranks(ranks: Sequence[int], missed: int = 0) -> dict[str, float]:
    """The scores of one query from the places (from 1) of its relevant documents, of which some may be `missed`."""
    places = np.sort(np.asarray(ranks, dtype=np.float64))
    relevant = max(len(places) + missed, 1)
    gains = {k: (1 / np.log2(places[places <= k] + 1)).sum() for k in CUTS}
    ideal = {k: (1 / np.log2(np.arange(2, min(relevant, k) + 2))).sum() for k in CUTS}
    return {
        "mrr": float(1 / places[0]) if len(places) else 0.0,
        **{f"ndcg_{k}": float(gains[k] / ideal[k]) for k in CUTS},
        **{f"recall_{k}": float((places <= k).sum() / relevant) for k in CUTS},
        "map": float((np.arange(1, len(places) + 1) / places).sum() / relevant),
    }
