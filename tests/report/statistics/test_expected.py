"""Expected validation performance against enumeration of all subsets, and what it refuses."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from research.common.errors import UserError
from research.report.statistics.expected import expected_validation, maximum_weights, without_each


def test_it_is_the_mean_maximum_of_all_subsets() -> None:
    scores = np.random.default_rng(0).random(9)
    curve = expected_validation(scores, "random")
    for n in range(1, 10):
        exact = np.mean([max(subset) for subset in combinations(scores, n)])
        assert curve.mean[n - 1] == pytest.approx(exact, abs=1e-10)
    assert curve.budget.tolist() == list(range(1, 10))


def test_equal_scores_are_counted_apart() -> None:
    curve = expected_validation(np.array([0.5, 0.5, 1.0]), "random")
    assert curve.mean == pytest.approx([2 / 3, 0.5 / 3 + 2 / 3, 1.0], abs=1e-12)


def test_it_is_unbiased_where_the_older_estimator_is_not() -> None:
    """Of uniform scores the expected best of n is n / (n + 1); Dodge et al. (2019) draw with replacement."""
    rng = np.random.default_rng(0)
    samples = np.sort(rng.random((20_000, 10)), axis=1)
    ours = (samples @ maximum_weights(10)).mean(axis=0)
    n = np.arange(1, 11)
    assert ours == pytest.approx(n / (n + 1), abs=0.003)
    older = np.diff((np.arange(11)[:, None] / 10) ** n, axis=0)  # weights of the empirical distribution's maximum
    assert (samples @ older).mean(axis=0)[9] < 10 / 11 - 0.02


def test_weights_are_probabilities_even_of_many_trials() -> None:
    weights = maximum_weights(400)
    assert weights.sum(axis=0) == pytest.approx(np.ones(400), abs=1e-9)
    assert (weights >= 0).all()


def test_bands_hold_the_mean_and_end_where_too_few_trials_decide() -> None:
    curve = expected_validation(np.random.default_rng(0).random(50), "random")
    assert (curve.low[:4] < curve.mean[:4]).all() and (curve.mean[:4] < curve.high[:4]).all()
    assert np.isnan(curve.low[4:]).all() and np.isnan(curve.high[4:]).all()


def test_the_band_of_one_trial_is_students_interval_of_the_mean() -> None:
    scores = np.random.default_rng(0).random(20)
    curve = expected_validation(scores, "random")
    interval = stats.t.interval(0.95, 19, scores.mean(), stats.sem(scores))
    assert (curve.low[0], curve.high[0]) == pytest.approx(interval, abs=1e-12)


def test_leaving_each_out_is_the_estimate_of_the_others() -> None:
    scores = np.sort(np.random.default_rng(0).random(7))
    for i, estimates in enumerate(without_each(scores)):
        assert estimates == pytest.approx(expected_validation(np.delete(scores, i), "random").mean, abs=1e-12)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "grid", "qmc"])
def test_samplers_that_choose_are_refused(sampler: str) -> None:
    with pytest.raises(UserError, match=rf"needs independent trials, and the sampler '{sampler}' chooses"):
        expected_validation(np.array([0.1, 0.2, 0.3]), sampler)


def test_one_trial_is_refused() -> None:
    with pytest.raises(UserError, match="at least two trials"):
        expected_validation(np.array([0.5]), "random")
