"""Is one system better than another? Paired tests over examples, and over seeds.

Legend: N examples, R runs, B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from research.report.statistics.folds import fold_p_value
from research.report.statistics.intervals import Draws, contrast
from research.report.statistics.paired_counts import PairedCounts
from research.report.statistics.resampling import swapped

Correction = Literal["holm", "bh", "none"]
EXACT_BELOW = 25  # discordant examples: below, McNemar's test is exact
DOMINANCE = 0.2  # the threshold on epsilon that Ulmer et al. 2022 recommend
LEAST_SEEDS = 5  # on a side, for the bound of epsilon to have its level


@dataclass(frozen=True)
class Test:
    """What a test says: its p-value (None where it has none), what it assumes, and its own figures."""

    name: str
    p_value: float | None
    assumes: str
    detail: str = ""


def paired_bootstrap(counts: PairedCounts, runs: tuple[int, ...], replicates: np.ndarray) -> Test:
    """Paired bootstrap over examples (Koehn 2004; two-sided by shift, Berg-Kirkpatrick et al. 2012).

    `replicates` (B, R) are the runs' metrics on bootstrap resamples of the examples.
    """
    estimate = float(contrast(counts.metrics, runs))
    errors = Draws(estimate, contrast(replicates, runs) - estimate, "examples")
    return Test(
        "paired bootstrap over examples",
        errors.p_value,
        "the examples are a random sample of the task's; the runs are as they are",
        f"{len(replicates):,} resamples, the metric recomputed on each",
    )


def randomisation(counts: PairedCounts, resamples: int, seed: int = 0) -> Test:
    """Approximate randomisation (Noreen 1989; Yeh 2000) of the first half of the runs against the second half."""
    half = len(counts.values) // 2
    estimate = float(contrast(counts.metrics, (half, half)))
    return Test(
        "approximate randomisation over examples",
        Draws(estimate, swapped(counts, resamples, seed), "examples").p_value,
        "were the systems equal, their outputs on each example could change places",
        f"{resamples:,} random exchanges, the metric recomputed on each",
    )


def mcnemar(right: np.ndarray, right_other: np.ndarray) -> Test:
    """McNemar's test of which examples one run gets right and another does not, each (N,) of 0 and 1.

    Exact (binomial) below 25 discordant examples, else the chi-squared form without continuity correction.
    """
    from statsmodels.stats.contingency_tables import mcnemar as test

    both = [[((right == a) & (right_other == b)).sum() for b in (1, 0)] for a in (1, 0)]
    first, second = int(both[0][1]), int(both[1][0])
    exact = first + second < EXACT_BELOW
    p_value = 1.0 if first == second else float(test(both, exact=exact, correction=False).pvalue)
    return Test(
        f"McNemar's test ({'exact' if exact else 'chi-squared'})",
        min(p_value, 1.0),
        "the examples are independent; the two runs are as they are",
        f"right in one run alone: {first:,} examples here, {second:,} there",
    )


def over_seeds_and_examples(draws: Draws) -> Test:
    """The hierarchical bootstrap of `intervals.over_both` as a test."""
    return Test(
        "bootstrap over seeds and examples",
        draws.p_value,
        "seeds and examples are random samples, the runs of the two systems independent; scores near normal over seeds",
        f"{len(draws.errors):,} resamples",
    )


def over_folds(differences: np.ndarray, train_examples: float, test_examples: float) -> Test:
    """The corrected resampled t test of `folds.fold_p_value`, of the differences of J folds."""
    return Test(
        "corrected resampled t test over folds",
        fold_p_value(differences, train_examples, test_examples),
        "the differences of the folds are near normal; their training sets overlap as Nadeau & Bengio (2003) estimate",
        f"{len(differences)} folds, {len(differences) - 1} degrees of freedom",
    )


def almost_stochastic_order(
    scores: np.ndarray,
    other: np.ndarray,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    over: str = "seeds",
) -> Test:
    """Do scores over seeds or few-shot samples almost stochastically dominate others (Del Barrio et al. 2018; Dror et
    al. 2019)? `over` names what the scores vary over.

    Reports the upper confidence bound of epsilon, the share of violation: 0 is full dominance, below 0.5 more than
    not; it has no p-value. Raises ValueError for fewer than two scores on a side.
    """
    if min(len(scores), len(other)) < 2:
        raise ValueError(f"one run says nothing about the spread over {over}")
    epsilon = float(violation(scores, other))
    bound = epsilon_bound(scores, other, resamples, level, seed)
    verdict = "dominates" if bound < DOMINANCE else "almost dominates" if bound < 0.5 else "does not dominate"
    count = min(len(scores), len(other))
    few = f"; {count} {over} are too few for this confidence" if count < LEAST_SEEDS else ""
    detail = f"epsilon {epsilon:.3f}, at most {bound:.3f} with {100 * level:.0f} % confidence: {verdict}"
    return Test(
        f"almost stochastic order over {over}",
        None,
        f"the {over} of each system are a random sample; nothing about their distribution",
        f"{detail} (below {DOMINANCE} does){few}",
    )


def violation(scores: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Epsilon of Del Barrio et al. (2018): the share of the squared Wasserstein distance in which `scores` is behind.

    Samples along the last axis, (..., n) and (..., m). Exact for the empirical quantile functions, which are steps.
    1, no evidence of any order, where the samples are equal.
    """
    scores, other = np.sort(scores, axis=-1), np.sort(other, axis=-1)
    count, other_count = scores.shape[-1], other.shape[-1]
    # The steps of both quantile functions in units of 1 / (n m), in which they are integers.
    edges = np.union1d(np.arange(count + 1) * other_count, np.arange(other_count + 1) * count)
    gap = scores[..., edges[:-1] // other_count] - other[..., edges[:-1] // count]
    squares = gap**2 * np.diff(edges)
    total = squares.sum(axis=-1)
    behind = np.where(gap < 0, squares, 0.0).sum(axis=-1)
    return np.where(total > 0, behind / np.where(total > 0, total, 1), 1.0)


def epsilon_bound(scores: np.ndarray, other: np.ndarray, resamples: int, level: float, seed: int) -> float:
    """Upper confidence bound of epsilon: the expanded percentile of the bootstrap (Hesterberg 2015).

    The bound of Del Barrio et al. (2018), epsilon and the bootstrap's deviation times a normal quantile, is one of
    large samples and unequal laws. At 5 % it says of one of two equal systems that it almost dominates (bound below
    0.5) in 19 % of cases, with 5 seeds as with 200; of N(0, 1) against N(0, 4) in 19 % with 5 seeds and 7 % with 200.
    The percentile does so in 4 % of both with 5 seeds, 5 % with 10 and more; in 7 % with 3, or of 50 heavy-tailed ones.
    """
    rng = np.random.default_rng(seed)
    resampled = violation(
        scores[rng.integers(len(scores), size=(resamples, len(scores)))],
        other[rng.integers(len(other), size=(resamples, len(other)))],
    )
    seeds = min(len(scores), len(other))
    widened = stats.norm.cdf(np.sqrt(seeds / (seeds - 1)) * stats.t.ppf(level, seeds - 1))
    return max(float(violation(scores, other)), float(np.quantile(resampled, widened)))


def corrected(p_values: Sequence[float], method: Correction) -> list[float]:
    """p-values of a family of tests, corrected: "holm" bounds any false claim, "bh" the share of false claims."""
    if method == "none" or not p_values:
        return list(p_values)
    order, count = np.argsort(p_values), len(p_values)
    rising = np.asarray(p_values, dtype=float)[order]
    if method == "holm":  # Holm 1979
        values = np.maximum.accumulate(rising * np.arange(count, 0, -1))
    else:  # Benjamini and Hochberg 1995
        values = np.minimum.accumulate((rising / (np.arange(1, count + 1) / count))[::-1])[::-1]
    found = np.empty(count)
    found[order] = np.minimum(values, 1.0)
    return [float(p) for p in found]
