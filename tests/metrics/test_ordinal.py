"""Scores of ordered labels, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, mean_absolute_error

from research.metrics.ordinal import Metric

LABELS = ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 5, 40)
    found = np.clip(gold + rng.integers(-2, 3, 40), 0, 4)
    metric = Metric({"labels": LABELS})
    scores = metric.score(metric.table([LABELS[i] for i in found], [LABELS[i] for i in gold]))
    kappa = cohen_kappa_score(gold, found, weights="quadratic", labels=range(5))
    assert scores["kappa"] == pytest.approx(kappa, abs=1e-12)
    assert scores["mae"] == pytest.approx(mean_absolute_error(gold, found), abs=1e-12)
    assert scores["accuracy"] == accuracy_score(gold, found)
    assert scores["f1"] == pytest.approx(f1_score(gold, found, average="macro", labels=range(5), zero_division=0))
    assert scores["within_1"] == (np.abs(gold - found) <= 1).mean()


def test_a_constant_has_no_kappa() -> None:
    metric = Metric({"labels": LABELS})
    assert metric.score(metric.table(["3", "3"], ["3", "3"]))["kappa"] == 0.0
    assert metric.score(metric.table(["3", "3"], ["1", "5"]))["kappa"] == 0.0
