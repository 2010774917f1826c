"""Tests against scipy, statsmodels, exact enumeration and worked examples."""

from itertools import product

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar

from research.report.statistics.paired_counts import PairedCounts
from research.report.statistics.paired_tests import (
    almost_stochastic_order,
    corrected,
    epsilon_bound,
    mcnemar,
    paired_bootstrap,
    randomisation,
    violation,
)
from research.report.statistics.resampling import bootstrap
from tests.report.statistics.test_resampling import answers, span_counts


def right_and_wrong(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    cells = np.repeat([0, 1, 2, 3], [both, first, second, neither])
    return (cells < 2).astype(float), np.isin(cells, (0, 2)).astype(float)


def test_mcnemar_of_the_worked_example() -> None:
    """Agresti (Categorical Data Analysis, section 11.1.1): a poll asked twice, chi-squared 17.36."""
    test = mcnemar(*right_and_wrong(794, 150, 86, 570))
    assert test.p_value == pytest.approx(stats.chi2.sf((150 - 86) ** 2 / (150 + 86), 1), abs=1e-12)
    assert test.p_value == pytest.approx(3.1e-5, abs=1e-6)
    assert "chi-squared" in test.name and test.detail == "right in one run alone: 150 examples here, 86 there"


@pytest.mark.parametrize(("first", "second"), [(2, 8), (0, 5), (12, 12), (1, 0), (20, 4), (13, 12), (40, 10), (60, 61)])
def test_mcnemar_is_that_of_statsmodels_exact_when_small(first: int, second: int) -> None:
    test = mcnemar(*right_and_wrong(100, first, second, 30))
    exact = first + second < 25
    reference = reference_mcnemar([[100, first], [second, 30]], exact=exact, correction=False).pvalue
    assert test.p_value == pytest.approx(min(reference, 1.0), abs=1e-10)
    if exact:
        assert test.p_value == pytest.approx(min(1.0, stats.binomtest(first, first + second).pvalue), abs=1e-10)
        assert "exact" in test.name


def test_mcnemar_of_equal_answers_is_one() -> None:
    assert mcnemar(*right_and_wrong(70, 0, 0, 30)).p_value == 1.0


def test_randomisation_has_the_exact_p_value() -> None:
    """All 2^10 exchanges of ten examples, enumerated."""
    counts = span_counts(2, 10, seed=11)
    observed = abs(float(counts.metrics[0] - counts.metrics[1]))
    reached = 0
    for coins in product((False, True), repeat=10):
        pick = np.array(coins)[:, None]
        first, second = np.where(pick, counts.values[1], counts.values[0]), np.where(pick, *counts.values)
        reached += abs(float(counts.score(first.sum(axis=0)) - counts.score(second.sum(axis=0)))) >= observed - 1e-12
    assert randomisation(counts, 50_000).p_value == pytest.approx(reached / 1024, abs=0.01)


def test_randomisation_of_accuracy_is_the_binomial_test() -> None:
    """Exchanging outputs flips each discordant answer by a coin: the two-sided sign test."""
    right, other = right_and_wrong(50, 4, 13, 20)
    values = np.stack([np.stack([side, np.ones_like(side)], axis=-1) for side in (right, other)])
    counts = PairedCounts([str(i) for i in range(87)], values, answers(1, 1).score)
    assert randomisation(counts, 50_000).p_value == pytest.approx(stats.binomtest(4, 17).pvalue, abs=0.005)


@pytest.mark.slow
def test_paired_bootstrap_of_accuracy_is_close_to_the_normal_test() -> None:
    right, other = right_and_wrong(1000, 120, 150, 300)
    values = np.stack([np.stack([side, np.ones_like(side)], axis=-1) for side in (right, other)])
    counts = PairedCounts([str(i) for i in range(1570)], values, answers(1, 1).score)
    gap = right - other
    z = gap.mean() / (gap.std() / np.sqrt(len(gap)))
    test = paired_bootstrap(counts, (1, 1), bootstrap(counts, 50_000))
    assert test.p_value == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.01)


def test_identical_systems_have_p_one() -> None:
    once = span_counts(1, 100)
    counts = PairedCounts(once.ids, np.concatenate([once.values, once.values]), once.score)
    assert randomisation(counts, 500).p_value == 1.0
    assert paired_bootstrap(counts, (1, 1), bootstrap(counts, 500)).p_value == 1.0


@pytest.mark.parametrize(
    ("scores", "other", "epsilon"),
    [
        ([3, 4], [1, 2], 0.0),
        ([1, 2], [3, 4], 1.0),
        ([1, 4], [2, 3], 0.5),  # behind by 1 on one half, ahead by 1 on the other
        ([3, 0], [1, 1, 1], 0.2),  # behind by 1 (squared 1), ahead by 2 (squared 4)
        ([1], [0, 2], 0.5),
        ([1, 2, 3], [3, 2, 1], 1.0),  # equal: no evidence
    ],
)
def test_violation_by_hand(scores: list[float], other: list[float], epsilon: float) -> None:
    assert violation(np.array(scores), np.array(other)) == pytest.approx(epsilon, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_violation_is_the_integral_over_quantiles(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, other = rng.normal(0.1, 1, size=7), rng.normal(0, 1.5, size=5)
    levels = (np.arange(70_000) + 0.5) / 70_000
    gap = np.quantile(scores, levels, method="inverted_cdf") - np.quantile(other, levels, method="inverted_cdf")
    expected = (gap**2)[gap < 0].sum() / (gap**2).sum()
    assert violation(scores, other) == pytest.approx(expected, abs=1e-10)
    assert violation(scores, other) + violation(other, scores) == pytest.approx(1.0, abs=1e-12)


def test_violation_of_normal_scores_is_that_of_their_laws() -> None:
    """Of N(m, 1) against N(0, s^2) the quantile functions are known, and epsilon with them."""
    rng = np.random.default_rng(0)
    shift, spread = 0.5, 2.0
    levels = (np.arange(200_000) + 0.5) / 200_000
    gap = shift + stats.norm.ppf(levels) * (1 - spread)
    expected = (gap**2)[gap < 0].sum() / (gap**2).sum()
    sampled = violation(rng.normal(shift, 1, size=40_000), rng.normal(0, spread, size=40_000))
    assert sampled == pytest.approx(expected, abs=0.02)


def test_almost_stochastic_order_says_what_dominates() -> None:
    rng = np.random.default_rng(0)
    better, worse = rng.normal(0.9, 0.01, size=10), rng.normal(0.7, 0.01, size=10)
    assert "dominates (below 0.2 does)" in almost_stochastic_order(better, worse).detail
    assert epsilon_bound(better, worse, 500, 0.95, 0) == 0.0
    assert "does not dominate" in almost_stochastic_order(worse, better).detail
    assert "does not dominate" in almost_stochastic_order(better, better).detail
    assert "too few" not in almost_stochastic_order(better[:5], worse).detail
    assert "4 seeds are too few for this confidence" in almost_stochastic_order(better[:4], worse).detail
    with pytest.raises(ValueError, match="one run says nothing"):
        almost_stochastic_order(better[:1], worse)


def test_corrections_of_worked_examples() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005]
    assert corrected(p_values, "holm") == pytest.approx([0.03, 0.06, 0.06, 0.02], abs=1e-12)
    assert corrected(p_values, "bh") == pytest.approx([0.02, 0.04, 0.04, 0.02], abs=1e-12)
    assert corrected(p_values, "none") == p_values
    assert corrected([], "holm") == []


def test_benjamini_hochberg_of_the_paper() -> None:
    """Benjamini and Hochberg (1995, section 3.2): of fifteen p-values the procedure at 0.05 rejects the first four."""
    published = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
    published += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000]
    assert sum(p <= 0.05 for p in corrected(published, "bh")) == 4
    assert sum(p <= 0.05 for p in corrected(published, "holm")) == 3
    assert stats.false_discovery_control(published) == pytest.approx(corrected(published, "bh"), abs=1e-10)
