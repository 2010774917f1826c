"""Scores over folds or repeated splits of one data set: the corrected resampled t of Nadeau & Bengio (2003).

Training sets of different folds overlap, so their scores are not independent and the variance of their mean is larger
than s² / J. Nadeau & Bengio's estimate is s² (1 / J + n_test / n_train), with J - 1 degrees of freedom; for k folds
n_test / n_train is 1 / (k - 1).

Legend: J folds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from research.report.statistics.intervals import LEVEL, NOTHING, Interval


def over_folds(
    scores: Sequence[float] | np.ndarray, train_examples: float, test_examples: float, level: float = LEVEL,
    low: float = -np.inf, high: float = np.inf,
) -> Interval:  # fmt: skip
    """Interval of the mean of J scores, or of J differences of paired scores, within the range `low` to `high`.

    `train_examples` and `test_examples` are the mean sizes of a fold's two parts. Raises ValueError for one fold.
    """
    mean, error, freedom = _corrected(scores, train_examples, test_examples)
    half = stats.t.ppf((1 + level) / 2, freedom) * error
    return Interval(max(mean - half, low), min(mean + half, high), "folds", level)


def fold_p_value(differences: Sequence[float] | np.ndarray, train_examples: float, test_examples: float) -> float:
    """Two-sided p-value of a mean difference of zero, from J differences of paired scores; 1 where all are zero."""
    mean, error, freedom = _corrected(differences, train_examples, test_examples)
    if error <= NOTHING:
        return 1.0 if abs(mean) <= NOTHING else 0.0
    return float(2 * stats.t.sf(abs(mean) / error, freedom))


def _corrected(
    scores: Sequence[float] | np.ndarray, train_examples: float, test_examples: float
) -> tuple[float, float, int]:
    """Mean, its corrected standard error and degrees of freedom."""
    values = np.asarray(scores, dtype=np.float64)
    if len(values) < 2:
        raise ValueError("one fold says nothing about the spread over folds")
    variance = values.var(ddof=1) * (1 / len(values) + test_examples / train_examples)
    return float(values.mean()), float(np.sqrt(variance)), len(values) - 1
