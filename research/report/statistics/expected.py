"""Expected validation performance: the best score that a random search of n trials is expected to find.

Legend: T trials, n budget (trials).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import gammaln

from research.common.errors import UserError

RANDOM_SAMPLERS = ("random",)


@dataclass(frozen=True)
class ExpectedCurve:
    """The expected best of n trials, for n = 1, 2, ..., with a band where the trials can support one."""

    budget: np.ndarray  # (n,) trials
    mean: np.ndarray  # (n,)
    low: np.ndarray  # (n,), NaN where there is no band
    high: np.ndarray
    level: float


def expected_validation(scores: np.ndarray, sampler: str, level: float = 0.95) -> ExpectedCurve:
    """The unbiased estimator of Tang et al. (2020), higher scores being better, with pointwise bands.

    `scores` (T,) has the validation score of every trial of the search, those that came off badly included. The
    estimator is a U-statistic, so that its band comes from the jackknife and Student's t (Arvesen 1969). It ends at a
    budget of T / 12: beyond, too few trials decide the maximum for any band to cover what it says (Tang et al. show
    it for the bootstrap).

    Raises UserError for samplers that learn from earlier trials, since the estimator needs independent ones, and for
    fewer than two trials.
    """
    if sampler not in RANDOM_SAMPLERS:
        raise UserError(
            f"Expected validation performance needs independent trials, and the sampler '{sampler}' chooses each trial "
            "after those before it or from a plan; search with `sampler: random` for it."
        )
    scores = np.sort(np.asarray(scores, dtype=np.float64))
    count = len(scores)
    if count < 2:
        raise UserError("Expected validation performance needs at least two trials with a score.")
    mean = scores @ maximum_weights(count)  # (n,)
    left_out = without_each(scores)  # (T, n - 1): no T trials are left for a budget of T
    variance = (count - 1) / count * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0)
    half = np.full(count, np.nan)
    budgets = max(1, round(count / 12))
    half[:budgets] = stats.t.ppf((1 + level) / 2, count - 1) * np.sqrt(variance[:budgets])
    return ExpectedCurve(np.arange(1, count + 1), mean, mean - half, mean + half, level)


def without_each(scores: np.ndarray) -> np.ndarray:
    """The estimates from all sorted scores (T,) but one, one after another (T, n), n = 1 ... T - 1."""
    weights = maximum_weights(len(scores) - 1)  # (T - 1, n)
    below, above = scores[:-1, None] * weights, scores[1:, None] * weights  # as they rank without a higher, a lower one
    nothing = np.zeros((1, weights.shape[1]))
    beneath: np.ndarray = np.vstack([nothing, below.cumsum(axis=0)])
    beside: np.ndarray = np.vstack([above[::-1].cumsum(axis=0)[::-1], nothing])
    estimates: np.ndarray = beneath + beside
    return estimates


def maximum_weights(count: int) -> np.ndarray:
    """How often the i-th smallest of T scores is the largest of n drawn without replacement (T, n), n = 1 ... T.

    C(i - 1, n - 1) / C(T, n).
    """
    rank, budget = np.arange(1, count + 1)[:, None], np.arange(1, count + 1)[None, :]
    possible = rank >= budget
    logs = _log_choose(np.where(possible, rank - 1, budget), budget - 1) - _log_choose(count, budget)
    return np.where(possible, np.exp(logs), 0.0)


def _log_choose(total: np.ndarray | int, chosen: np.ndarray) -> np.ndarray:
    logarithm: np.ndarray = gammaln(np.add(total, 1)) - gammaln(chosen + 1) - gammaln(np.subtract(total, chosen) + 1)
    return logarithm
