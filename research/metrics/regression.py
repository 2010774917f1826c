"""Scores of predicted numbers: Pearson's and Spearman's correlation, mean absolute and root mean squared error.

Legend: N examples.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from scipy import stats

from research.metrics.base import BaseMetric, Blocks, Formula, ratio
from research.metrics.baselines import Baselines, answering
from research.metrics.examples import Floats
from research.metrics.score import Score

ROUNDING = 1e-13  # of a sum of squares: what is left of the spread of a constant


class Metric(BaseMetric):
    """Numbers as `scipy.stats` compares them; a correlation with a constant is 0.

    Spearman's correlation follows from ranks among all examples, so it is no sum over them: intervals and tests are of
    Pearson's.
    """

    scores = (
        Score("pearson", "Pearson's r", low=-1.0),
        Score("spearman", "Spearman's rho", low=-1.0),
        Score("mae", "mean absolute error", smaller_is_better=True, high=np.inf),
        Score("rmse", "root mean squared error", smaller_is_better=True, high=np.inf),
    )
    texts = ("text", "text_pair")
    columns = ("score",)
    signature = "regression|scipy"
    sentence = "Pearson's and Spearman's correlation and the mean absolute error"

    def widths(self) -> dict[str, int]:
        return {"moments": 6, "absolute": 2, "squared": 2}

    def counts(self, table: pa.Table) -> Blocks:
        """`moments`: 1, gold, prediction, and their products. `absolute`, `squared`: the error, 1."""
        gold, found = numbers(table)
        ones = np.ones(len(gold))
        return {
            "moments": np.column_stack([ones, gold, found, gold * gold, found * found, gold * found]),
            "absolute": np.column_stack([np.abs(gold - found), ones]),
            "squared": np.column_stack([(gold - found) ** 2, ones]),
        }

    def formula(self, name: str) -> Formula | None:
        if name == "pearson":
            return Formula(("moments",), pearson)
        if name == "rmse":
            return Formula(("squared",), lambda sums: np.sqrt(ratio(sums)))
        return Formula(("absolute",), ratio) if name == "mae" else None

    def reported(self, sums: Blocks) -> list[str]:
        return ["pearson", "mae", "rmse"]

    def beside(self, table: pa.Table) -> dict[str, float]:
        gold, found = numbers(table)
        ranks = (stats.rankdata(gold), stats.rankdata(found))
        columns = np.column_stack([np.ones(len(gold)), *ranks, ranks[0] ** 2, ranks[1] ** 2, ranks[0] * ranks[1]])
        return {"spearman": float(pearson(columns.sum(axis=0)))}

    def baselines(self, table: pa.Table, train: pa.Table | None = None) -> Baselines:
        """Always the mean of the examples' own numbers."""
        mean = float(numbers(table)[0].mean())
        return {"mean": self.score(answering(table, [mean] * table.num_rows))}

    def example_scores(self, table: pa.Table) -> Floats:
        """1 less the error as a share of the range of the gold numbers, 0 at least."""
        gold, found = numbers(table)
        spread = float(np.ptp(gold)) or 1.0
        return np.maximum(0.0, 1 - np.abs(gold - found) / spread)

    def shown(self, table: pa.Table) -> tuple[list[str], list[str]]:
        gold, found = ([f"{value:.3g}" for value in side] for side in numbers(table))
        return gold, found


def numbers(table: pa.Table) -> tuple[Floats, Floats]:
    """Gold and predicted numbers (N,). Raises ValueError for values that are none."""
    sides = [np.array(table.column(name).to_pylist(), dtype=np.float64) for name in ("gold", "prediction")]
    if not all(np.isfinite(side).all() for side in sides):
        raise ValueError("gold and prediction must be numbers: there is a NaN, an infinity or a null")
    return sides[0], sides[1]


def pearson(sums: Floats) -> Floats:
    """Pearson's correlation from summed moments (..., 6); 0 where one side is constant."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    n = np.maximum(n, 1)
    covariance, spread_x, spread_y = xy - x * y / n, xx - x * x / n, yy - y * y / n
    varies = (spread_x > ROUNDING * xx) & (spread_y > ROUNDING * yy)
    return np.where(varies, covariance / np.sqrt(np.where(varies, spread_x * spread_y, 1)), 0.0)
