"""Multi-label scores are those of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from research.metrics.multi_label import Metric, best_threshold

LABELS = ["a", "b", "c", "d"]


def sets_of(indicators: np.ndarray) -> list[list[str]]:
    return [[LABELS[i] for i in np.flatnonzero(row)] for row in indicators]


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gold, found = (rng.random((2, 40, 4)) < [[[0.5, 0.2, 0.05, 0.0]], [[0.4, 0.3, 0.0, 0.1]]])[:]
    metric = Metric({"labels": LABELS})
    scores = metric.score(metric.table(sets_of(found), sets_of(gold)))
    settings = {"zero_division": 0}
    assert scores["micro_f1"] == pytest.approx(f1_score(gold, found, average="micro", **settings), abs=1e-12)
    assert scores["macro_f1"] == pytest.approx(f1_score(gold, found, average="macro", **settings), abs=1e-12)
    assert scores["sample_f1"] == pytest.approx(f1_score(gold, found, average="samples", **settings), abs=1e-12)
    assert scores["micro_precision"] == pytest.approx(precision_score(gold, found, average="micro", **settings))
    assert scores["micro_recall"] == pytest.approx(recall_score(gold, found, average="micro", **settings))
    assert scores["accuracy"] == pytest.approx(accuracy_score(gold, found))
    each = f1_score(gold, found, average=None, **settings)
    assert [scores[f"f1/{label}"] for label in LABELS] == pytest.approx(list(each))
    assert scores["support/a"] == gold[:, 0].sum() and "threshold" not in scores


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_best_threshold_is_that_of_a_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gold, p = rng.random((30, 4)) < 0.3, np.round(rng.random((30, 4)), 2)
    searched = max(f1_score(gold, p > t, average="micro", zero_division=0) for t in np.arange(-0.005, 1, 0.005))
    threshold = best_threshold(gold, p)
    assert f1_score(gold, p > threshold, average="micro", zero_division=0) == pytest.approx(searched)
    metric = Metric({"labels": LABELS})
    table = metric.table(sets_of(gold), sets_of(gold), probabilities=p.tolist())
    assert metric.score(table)["threshold"] == threshold


def test_an_undeclared_label_is_refused() -> None:
    metric = Metric({"labels": LABELS})
    with pytest.raises(ValueError, match="the label 'e' is not among the declared"):
        metric.score(metric.table([["e"]], [["a"]]))
    assert metric.example_scores(metric.table([[], ["a"], ["b"]], [[], ["a", "b"], []])).tolist() == [1, 2 / 3, 0]
