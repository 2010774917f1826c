"""Correlations and errors are those of scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from research.metrics.regression import Metric, pearson


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_scores_are_those_of_scipy(offset: float) -> None:
    rng = np.random.default_rng(0)
    gold = np.round(rng.normal(size=50), 1) + offset
    found = 0.5 * gold + rng.normal(size=50)
    metric = Metric({})
    table = metric.table(found.tolist(), gold.tolist())
    scores = metric.score(table)
    assert scores["pearson"] == pytest.approx(stats.pearsonr(gold, found).statistic, abs=1e-8)
    assert scores["spearman"] == pytest.approx(stats.spearmanr(gold, found).statistic, abs=1e-12)
    assert scores["mae"] == pytest.approx(mean_absolute_error(gold, found), abs=1e-12)
    assert scores["rmse"] == pytest.approx(root_mean_squared_error(gold, found), abs=1e-12)
    assert metric.count(table, "rmse").metric == pytest.approx(scores["rmse"])
    resampled = metric.count(table, "pearson")
    rows = rng.integers(0, 50, 50)
    again = float(resampled.score(resampled.values[rows].sum(axis=0)))
    assert again == pytest.approx(stats.pearsonr(gold[rows], found[rows]).statistic, abs=1e-8)


def test_a_constant_has_no_correlation_and_other_than_numbers_are_refused() -> None:
    metric = Metric({})
    scores = metric.score(metric.table([0.1] * 7, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]))
    assert scores["pearson"] == scores["spearman"] == 0.0
    assert float(pearson(np.zeros(6))) == 0.0
    with pytest.raises(ValueError, match="must be numbers"):
        metric.score(metric.table([np.nan], [1.0]))
    assert metric.example_scores(metric.table([1.0, 2.0, 9.0], [1.0, 4.0, 5.0])).tolist() == [1.0, 0.5, 0.0]
