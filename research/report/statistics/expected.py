"""Expected validation performance: the best score that a random search of n trials is expected to find.

Legend: T trials, n budget (trials), B resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from research.errors import UserError

RANDOM_SAMPLERS = ("random",)


@dataclass(frozen=True)
class ExpectedCurve:
    """The expected best of n trials, for n = 1, 2, ..., with a band where the trials can support one."""

    budget: np.ndarray  # (n,) trials
    mean: np.ndarray  # (n,)
    low: np.ndarray  # (n,), NaN where there is no band
    high: np.ndarray
    level: float


def expected_validation(
    scores: np.ndarray, sampler: str, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> ExpectedCurve:
    """The unbiased estimator of Tang et al. (2020), higher scores being better, with pointwise bootstrap bands.

    `scores` (T,) has the validation score of every trial of the search, those that came off badly included. The band
    ends at a budget of T / 5: beyond, too few trials decide the maximum and a bootstrap covers too little (Tang et
    al. show it, and our simulations).

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
    weights = maximum_weights(count)  # (T, n)
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    resampled = np.sort(scores[drawn], axis=1) @ weights  # (B, n)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    beyond = np.arange(1, count + 1) > max(1, count // 5)
    low[beyond] = high[beyond] = np.nan
    return ExpectedCurve(np.arange(1, count + 1), scores @ weights, low, high, level)


def maximum_weights(count: int) -> np.ndarray:
    """How often the i-th smallest of T scores is the largest of n drawn without replacement (T, n), n = 1 ... T.

    C(i - 1, n - 1) / C(T, n).
    """
    rank, budget = np.arange(1, count + 1)[:, None], np.arange(1, count + 1)[None, :]
    possible = rank >= budget
    logs = _log_choose(np.where(possible, rank - 1, budget), budget - 1) - _log_choose(count, budget)
    return np.where(possible, np.exp(logs), 0.0)


def _log_choose(total: np.ndarray | int, chosen: np.ndarray) -> np.ndarray:
    return gammaln(np.add(total, 1)) - gammaln(chosen + 1) - gammaln(np.subtract(total, chosen) + 1)
