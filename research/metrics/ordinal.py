"""Scores of ordered labels, such as stars: quadratic weighted kappa and the mean absolute error in levels.

Legend: N examples, K counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from research.metrics.base import BaseMetric, Blocks, Formula, ratio
from research.metrics.examples import Floats
from research.metrics.of_labels import OfLabels
from research.metrics.score import Score
from research.metrics.slicing import Cut


class Metric(OfLabels, BaseMetric):
    """Labels with an order; `settings["labels"]` are the levels, the lowest first.

    `kappa` is Cohen's (1968) with quadratic weights, as scikit-learn has it, and 0 where all gold and predicted labels
    are one level; `mae` is the mean distance in levels; `within_1` the share of examples at most one level off.
    Accuracy and macro F1 are those of plain classification.
    """

    scores = (
        Score("kappa", "quadratic kappa", low=-1.0),
        Score("mae", "mean absolute error (levels)", smaller_is_better=True, high=np.inf),
        Score("within_1", "at most one level off", is_proportion=True),
        Score("accuracy", "accuracy", is_proportion=True),
        Score("f1", "macro F1"),
        Score("calibration_error", "ECE", smaller_is_better=True),
    )
    has_labels = True
    texts = ("text", "text_pair")
    columns = ("label", "probabilities")
    sentence = "quadratic weighted kappa by the rules of scikit-learn and the mean absolute error in levels"

    @property
    def signature(self) -> str:
        return f"ordinal|weights:quadratic|levels:{len(self.labels.labels)}"

    def widths(self) -> dict[str, int]:
        return {"moments": 6, "levels": 2, "near": 2, **self.labels.widths()}

    def counts(self, table: pa.Table) -> Blocks:
        """`moments`: 1, gold, prediction, their squares, the squared distance. `levels`: the distance, 1. `near`: is it
        1 at most, 1. Else as in classification."""
        gold, found = (side.astype(np.float64) for side in self.labels.indices(table))  # each (N,)
        one, distance = np.ones(len(gold)), np.abs(gold - found)
        return {
            **self.labels.counts(table),
            "moments": np.column_stack([one, gold, found, gold**2, found**2, distance**2]),
            "levels": np.column_stack([distance, one]),
            "near": np.column_stack([(distance <= 1).astype(np.float64), one]),
        }

    def formula(self, name: str) -> Formula | None:
        if name == "kappa":
            return Formula(("moments",), kappa)
        if name in ("mae", "within_1"):
            return Formula(("levels" if name == "mae" else "near",), ratio)
        return self.labels.formula(name)

    def reported(self, sums: Blocks) -> list[str]:
        return ["kappa", "mae", "within_1", *(name for name in self.labels.reported(sums) if name not in LEFT_OUT)]

    def own_cuts(self, table: pa.Table) -> Iterator[Cut]:
        return self.labels.own_cuts(table)


LEFT_OUT = ("precision", "recall", "mcc")  # scores of classification that say nothing of an order


def kappa(sums: Floats) -> Floats:
    """Quadratic weighted kappa from summed moments (..., 6): 1 - observed / expected squared distance."""
    n, x, y, xx, yy, observed = np.moveaxis(sums, -1, 0)
    expected = xx + yy - 2 * x * y / np.maximum(n, 1)
    return np.where(expected > 1e-9, 1 - observed / np.where(expected > 1e-9, expected, 1), 0.0)
