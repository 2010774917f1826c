"""Intervals and tests over folds, against values worked out by hand."""

import pytest

from research.report.statistics.folds import fold_p_value, over_folds

SCORES = [0.80, 0.82, 0.78, 0.84, 0.76]  # mean 0.80, variance 0.001


def test_the_interval_of_five_folds() -> None:
    """0.8 ± 2.776445 sqrt(0.001 (1 / 5 + 1 / 4)) = 0.8 ± 0.058897, 1.5 times as wide as without the correction."""
    found = over_folds(SCORES, 80, 20)
    assert (found.low, found.high) == pytest.approx((0.741103, 0.858897), abs=1e-6)
    assert found.over == "folds"


def test_the_interval_stays_within_the_range() -> None:
    found = over_folds([0.9, 1.0, 0.98], 2, 1, low=0.0, high=1.0)
    assert found.high == 1.0 and found.low < 0.9


def test_the_p_value_of_ten_splits() -> None:
    """Differences of mean 0.02, variance 0.0004, splits of 9 to 1: t = 0.02 / sqrt(0.0004 (0.1 + 1 / 9)) = 2.1764."""
    differences = [0.02 + sign * 0.0189737 for sign in (1, -1) * 5]
    assert fold_p_value(differences, 90, 10) == pytest.approx(0.05753, abs=2e-4)


def test_folds_without_any_difference() -> None:
    assert fold_p_value([0.0] * 5, 80, 20) == 1.0
    with pytest.raises(ValueError, match="one fold says nothing"):
        over_folds([0.5], 80, 20)
