"""Drift is found where answers change, and not where they do not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from research.deploy.drift import Drift, Reference, p_of_confidence, p_of_labels, seen, summary_of

HALVES = {"negative": 500, "positive": 500}


def test_labels_by_a_chi_square_test() -> None:
    p = p_of_labels(HALVES, {"negative": 130, "positive": 70})
    assert p == pytest.approx(stats.chi2_contingency([[500, 500], [130, 70]], correction=False).pvalue) and p < 1e-3
    assert p_of_labels(HALVES, {"negative": 52, "positive": 48}) > 0.5
    assert p_of_labels(HALVES, {"negative": 99}) == 1.0  # fewer than 100
    rare = {"negative": 100, "positive": 98, "a": 1, "b": 1}  # too rare, together too
    assert p_of_labels(HALVES, rare) == pytest.approx(p_of_labels(HALVES, {"negative": 100, "positive": 98}))
    assert p_of_labels(HALVES, {"new": 150}) < 1e-12 and p_of_labels({"a": 300}, {"a": 200}) == 1.0


def test_windows_that_do_not_change_alarm_no_more_often_than_p_says() -> None:
    random = np.random.default_rng(0)
    reference = list(random.beta(8, 2, 872))
    same = [p_of_confidence(reference, list(random.beta(8, 2, 100))) for _ in range(150)]
    other = [p_of_confidence(reference, list(random.beta(5, 3, 100))) for _ in range(20)]
    assert sum(p < 0.001 for p in same) <= 1 and all(p < 0.001 for p in other)


def test_what_is_seen_of_an_answer() -> None:
    assert seen({"prediction": "positive", "probabilities": {"negative": 0.1, "positive": 0.9}}) == ("positive", 0.9)
    assert seen({"prediction": "positive", "probabilities": [0.1, 0.9]}) == ("positive", 0.9)
    tags = {"prediction": ["B-PER", "I-PER", "O", "B-LOC"], "confidence": [0.9, 0.5, 1.0, 0.8]}
    assert seen(tags) == ("LOC+PER", 0.5) and seen({"prediction": ["O"], "confidence": [0.7]}) == ("none", 0.7)
    assert seen({"prediction": {"intent": "play", "tags": ["O"]}, "probabilities": {"play": 0.6}}) == ("play", 0.6)
    assert seen({"prediction": 3}) == (None, None) and seen({"prediction": []}) == ("none", None)
    assert summary_of([tags, tags]) == Reference({"LOC+PER": 2}, [0.5, 0.5])


def test_the_last_answers_are_compared() -> None:
    drift = Drift(Reference(HALVES, [0.9] * 500 + [0.6] * 500))
    for _ in range(500):
        drift.add({"prediction": "negative", "probabilities": {"negative": 0.6}})
    assert drift.p_labels() < 1e-12 and drift.p_confidence() < 1e-12
    for i in range(500):
        drift.add({"prediction": ("negative", "positive")[i % 2], "probabilities": {"negative": (0.9, 0.6)[i % 2]}})
    assert drift.p_labels() > 0.9 and drift.p_confidence() > 0.9
    assert Drift(Reference({}, [])).p_labels() == 1.0
    texts = Drift(summary_of([{"prediction": f"text {i}", "confidence": 0.5} for i in range(200)], has_labels=False))
    assert texts.reference == Reference({}, [0.5] * 200)
    for i in range(200):
        texts.add({"prediction": f"text {i}"})
    assert texts.p_labels() == 1.0
