"""Resamples: the metric is recomputed on each, both ways of drawing agree, and ten thousand take under two seconds."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import f1_score

from research.metrics.base import precision_recall_f1
from research.report.statistics.paired_counts import PairedCounts
from research.report.statistics.resampling import bootstrap, left_out, swapped

Score = Callable[[np.ndarray], np.ndarray]


def span_f1(sums: np.ndarray) -> np.ndarray:
    return precision_recall_f1(sums)[..., 2]


def mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / np.maximum(sums[..., 1], 1)


def span_counts(runs: int, examples: int, seed: int = 0) -> PairedCounts:
    """Counts like those of NER: a few entities a sentence, mostly found."""
    rng = np.random.default_rng(seed)
    gold = rng.poisson(1.5, size=examples)
    right = rng.binomial(gold, 0.8, size=(runs, examples))
    found = right + rng.poisson(0.3, size=(runs, examples))
    values = np.stack([right, found, np.broadcast_to(gold, right.shape)], axis=-1).astype(float)
    return PairedCounts([str(i) for i in range(examples)], values, span_f1)


def answers(runs: int, examples: int, seed: int = 0) -> PairedCounts:
    right = np.random.default_rng(seed).random((runs, examples)) < 0.8
    values = np.stack([right, np.ones_like(right)], axis=-1).astype(float)
    return PairedCounts([str(i) for i in range(examples)], values, mean)


@pytest.mark.slow
def test_each_replicate_is_the_metric_of_a_resample() -> None:
    """The drawn examples are known from the generator, and scikit-learn scores them again."""
    rng = np.random.default_rng(5)
    gold, prediction = rng.integers(2, size=40), rng.integers(2, size=40)
    marks = rng.random(40)  # a column that tells all examples apart
    values = np.stack([gold & prediction, prediction, gold, marks], axis=-1).astype(float)
    counts = PairedCounts(
        [str(i) for i in range(40)], values[None], lambda sums: precision_recall_f1(sums[..., :3])[..., 2]
    )
    replicates = bootstrap(counts, 300, seed=7)[:, 0]
    drawn = np.random.default_rng(7).integers(40, size=(300, 40))
    expected = [f1_score(gold[rows], prediction[rows]) for rows in drawn]
    assert replicates == pytest.approx(expected, abs=1e-12)


def test_drawing_equal_rows_together_changes_nothing_in_distribution() -> None:
    """Accuracy of a resample is binomial, drawn by four categories or by example."""
    together = answers(1, 400)
    apart = PairedCounts(
        together.ids, np.concatenate([together.values, np.random.default_rng(1).random((1, 400, 1))], axis=-1), mean
    )
    p = float(together.metrics[0])
    for counts in (together, apart):
        replicates = bootstrap(counts, 20_000)[:, 0]
        assert replicates.mean() == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 400 / 20_000))
        assert replicates.var() == pytest.approx(p * (1 - p) / 400, rel=0.04)


def test_runs_share_their_resamples() -> None:
    counts = answers(1, 500)
    twice = PairedCounts(counts.ids, np.concatenate([counts.values, counts.values]), mean)
    replicates = bootstrap(twice, 200)
    assert np.array_equal(replicates[:, 0], replicates[:, 1])


def test_left_out_is_the_metric_without_each_example() -> None:
    counts = span_counts(2, 30)
    for i in (0, 7, 29):
        rest = np.delete(counts.values, i, axis=1).sum(axis=1)
        assert left_out(counts)[i] == pytest.approx(span_f1(rest), abs=1e-15)


def test_swaps_have_the_distribution_of_all_exchanges() -> None:
    """Eight examples have 256 exchanges: all are enumerated."""
    counts = span_counts(2, 8, seed=3)
    exact = []
    for pattern in range(256):
        coins = np.array([(pattern >> i) & 1 for i in range(8)], bool)
        first = np.where(coins[:, None], counts.values[1], counts.values[0]).sum(axis=0)
        second = np.where(coins[:, None], counts.values[0], counts.values[1]).sum(axis=0)
        exact.append(float(span_f1(first) - span_f1(second)))
    drawn = swapped(counts, 40_000)
    assert set(np.round(drawn, 10)) <= set(np.round(exact, 10))
    for level in (0.05, 0.25, 0.5, 0.75, 0.95):
        value = float(np.quantile(exact, level, method="inverted_cdf"))
        share = np.mean(np.array(exact) <= value + 1e-12)
        assert (drawn <= value + 1e-12).mean() == pytest.approx(share, abs=0.012)


@pytest.mark.slow
@pytest.mark.timeout(120)  # two seconds a draw on a quiet machine
@pytest.mark.parametrize("counts", [span_counts(2, 10_000), answers(2, 10_000), span_counts(10, 10_000)])
def test_ten_thousand_resamples_of_ten_thousand_examples(counts: PairedCounts) -> None:
    for draw in (bootstrap, swapped):
        drawn = draw(counts, 10_000)
        assert len(drawn) == 10_000 and np.isfinite(drawn).all(), draw.__name__
