"""Intervals against scipy's, and what they are made of."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from research.common.errors import UserError
from research.report.statistics.intervals import Draws, bca, contrast, over_both, over_examples, over_seeds
from research.report.statistics.paired_counts import PairedCounts, clustered
from research.report.statistics.resampling import bootstrap
from tests.report.statistics.test_resampling import answers, mean, span_counts


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_bca_is_that_of_scipy(seed: int, level: float) -> None:
    values = np.random.default_rng(seed).gamma(1.5, size=60)
    reference = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=1999, confidence_level=level, rng=np.random.default_rng(seed)
    )
    jackknife = np.array([np.delete(values, i).mean() for i in range(60)])
    low, high = bca(values.mean(), reference.bootstrap_distribution, jackknife, level)
    assert low == pytest.approx(reference.confidence_interval.low, abs=1e-10)
    assert high == pytest.approx(reference.confidence_interval.high, abs=1e-10)


def test_bca_of_a_ratio_is_that_of_scipy() -> None:
    """F1 of summed counts, as `over_examples` has it."""
    counts = span_counts(1, 50)
    rows = counts.values[0]

    def statistic(index: np.ndarray, axis: int = -1) -> np.ndarray:
        return counts.score(np.take(rows, index.astype(int), axis=0).sum(axis=-2))

    reference = stats.bootstrap(
        (np.arange(50),), statistic, method="BCa", n_resamples=1999, rng=np.random.default_rng(0)
    )
    interval = over_examples(counts, (1,), reference.bootstrap_distribution[:, None])
    assert interval.low == pytest.approx(reference.confidence_interval.low, abs=1e-10)
    assert interval.high == pytest.approx(reference.confidence_interval.high, abs=1e-10)
    assert counts.metrics[0] in interval and interval.over == "examples"


def test_what_never_varies_has_an_interval_of_no_width() -> None:
    perfect = PairedCounts(["a", "b"], np.ones((1, 2, 2)), mean)
    interval = over_examples(perfect, (1,), bootstrap(perfect, 100))
    assert (interval.low, interval.high) == (1.0, 1.0)


def test_over_seeds_is_close_to_students_interval() -> None:
    """Of a mean of normal scores the t interval is exact; ours has its width without taking the shape for granted."""
    ratios = []
    for seed in range(40):
        scores = np.random.default_rng(seed).normal(0.8, 0.01, size=5)
        interval = over_seeds(scores, resamples=20_000, seed=seed).interval()
        low, high = stats.t.interval(0.95, 4, scores.mean(), stats.sem(scores))
        ratios.append((interval.high - interval.low) / (high - low))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.03)


def test_one_run_says_nothing_over_seeds() -> None:
    with pytest.raises(ValueError, match="one run says nothing"):
        over_seeds(np.array([0.8]))
    with pytest.raises(ValueError, match="one run says nothing"):
        over_seeds(np.array([0.8, 0.9]), np.array([0.7]))


def test_both_over_one_run_is_over_examples_alone() -> None:
    counts = answers(1, 2000)
    draws = over_both(counts, (1,), bootstrap(counts, 10_000))
    accuracy = float(counts.metrics[0])
    assert draws.over == "examples"
    assert draws.errors.std() == pytest.approx(np.sqrt(accuracy * (1 - accuracy) / 2000), rel=0.03)
    assert over_both(answers(3, 50), (1, 2), bootstrap(answers(3, 50), 100)).over == "examples"


@pytest.mark.slow
def test_both_adds_the_spread_over_seeds_and_counts_the_runs_noise_once() -> None:
    """Runs that answer at random around one accuracy: their spread over seeds is their noise on the examples."""
    widths = []
    for seed in range(60):
        counts = answers(5, 500, seed)
        widths.append(over_both(counts, (5,), bootstrap(counts, 2000), seed).errors.var())
    truth = 0.8 * 0.2 / (5 * 500)  # of the mean of 2500 independent answers
    freedom_4 = 4 / 2  # the variance of Student's t with 4 degrees of freedom
    assert truth < np.mean(widths) < 1.3 * freedom_4 * truth


def test_identical_systems_differ_by_nothing() -> None:
    once = span_counts(5, 200)
    counts = PairedCounts(once.ids, np.concatenate([once.values, once.values]), once.score)
    replicates = bootstrap(counts, 500)
    for draws in (over_both(counts, (5, 5), replicates), over_seeds(once.metrics, once.metrics)):
        assert draws.estimate == 0.0
        assert draws.p_value == 1.0
        assert 0.0 in draws.interval()
    assert (over_examples(counts, (5, 5), replicates).low, over_examples(counts, (5, 5), replicates).high) == (0.0, 0.0)


def test_p_value_and_interval_agree() -> None:
    errors = np.random.default_rng(0).normal(size=9999)
    assert Draws(1.96, errors, "seeds").p_value == pytest.approx(0.05, abs=0.006)
    assert Draws(0.0, np.zeros(99), "seeds").p_value == 1.0
    assert Draws(100.0, errors, "seeds").p_value == pytest.approx(1 / 10_000)
    interval = Draws(1.0, errors, "seeds").interval(0.9)
    assert (interval.low, interval.high) == pytest.approx((1 - 1.645, 1 + 1.645), abs=0.05)


def test_contrast() -> None:
    assert contrast(np.array([1.0, 2.0, 6.0]), (3,)) == 3.0
    assert contrast(np.array([[1.0, 3.0, 6.0]]), (2, 1)).tolist() == [-4.0]


def proportion(*right: tuple[int, ...]) -> PairedCounts:
    values = np.stack([np.array(right), np.ones((len(right), len(right[0])))], axis=-1).astype(float)
    return PairedCounts([str(i) for i in range(values.shape[1])], values, mean, 0.0, 1.0, True)


def test_an_accuracy_of_one_run_has_wilsons_interval() -> None:
    """8 of 10 right: Wilson's limits with Student's t of 9 degrees, as worked out by hand."""
    counts = proportion((1,) * 8 + (0,) * 2)
    found = over_both(counts, (1,), bootstrap(counts, 20_000)).interval()
    t, n, p = 2.262157, 10.0, 0.8
    centre, half = (p + t**2 / (2 * n)) / (1 + t**2 / n), t / (1 + t**2 / n) * (p * (1 - p) / n + t**2 / 400) ** 0.5
    assert abs(found.low - (centre - half)) < 0.005 and abs(found.high - (centre + half)) < 0.005


def test_an_accuracy_of_one_leaves_room_below() -> None:
    counts = proportion((1,) * 30)
    found = over_both(counts, (1,), bootstrap(counts, 100)).interval()
    assert abs(found.high - 1) < 1e-12 and abs(found.low - 30 / (30 + 1.959964**2)) < 1e-6


def test_two_seeds_far_apart_stay_within_the_range_of_the_score() -> None:
    counts = proportion((1,) * 9 + (0,), (0,) * 8 + (1,) * 2)
    found = over_both(counts, (2,), bootstrap(counts, 1000)).interval()
    assert 0.0 <= found.low < found.high <= 1.0
    f1 = PairedCounts(counts.ids, counts.values, mean, 0.0, 1.0)
    found = over_both(f1, (2,), bootstrap(f1, 1000)).interval()
    assert (found.low, found.high) == (0.0, 1.0)


def test_equal_answers_leave_room_for_a_difference() -> None:
    """Bonett & Price (2012) with no example that differs: 0 and 1.96 sqrt(2 / 52 / 52) to each side."""
    counts = proportion((1,) * 40 + (0,) * 10, (1,) * 40 + (0,) * 10)
    found = over_both(counts, (1, 1), bootstrap(counts, 100)).interval()
    assert abs(found.high - 1.959964 * (2 / 52 / 52) ** 0.5) < 1e-6 and found.low == -found.high


def test_swapping_the_sides_changes_the_sign_alone() -> None:
    rng = np.random.default_rng(0)
    right = tuple(tuple(int(x) for x in row) for row in rng.random((5, 40)) < 0.7)
    first, second = proportion(*right), proportion(*right[3:], *right[:3])
    there = over_both(first, (3, 2), bootstrap(first, 500))
    back = over_both(second, (2, 3), bootstrap(second, 500))
    assert there.p_value == back.p_value
    limits = (there.interval().low, there.interval().high)
    assert limits == pytest.approx((-back.interval().high, -back.interval().low), abs=1e-12)


def test_clusters_are_summed_and_resampled_together() -> None:
    counts = proportion((1, 1, 0, 1), (0, 1, 1, 1))
    table = pa.table({"id": counts.ids, "document": ["b", "a", "b", None]})
    found = clustered(counts, table, "a run", "document")
    assert found.ids == ["a", "alone 3", "b"] and found.unit == "clusters"
    assert found.values.tolist() == [[[1, 1], [1, 1], [1, 2]], [[1, 1], [1, 1], [1, 2]]]
    with pytest.raises(UserError, match=r"data.cluster=chapter is no column of the predictions of a run"):
        clustered(counts, table, "a run", "chapter")
