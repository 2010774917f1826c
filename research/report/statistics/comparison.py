"""Two groups of runs compared: the difference with its intervals, the tests, their correction, and power."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from research.common.errors import UserError
from research.report.groups import RunGroup
from research.report.statistics import paired_tests
from research.report.statistics.folds import over_folds
from research.report.statistics.intervals import Interval, contrast, over_both, over_examples
from research.report.statistics.paired_counts import PairedCounts
from research.report.statistics.paired_tests import Correction, Test, corrected
from research.report.statistics.pool import Pool
from research.report.statistics.power import examples_needed, seeds_needed


@dataclass(frozen=True)
class Comparison:
    """One system against another on one data set."""

    first: RunGroup
    second: RunGroup
    split: str
    examples: int  # paired by id
    scores: np.ndarray  # one per run, or per fold, fractions
    other_scores: np.ndarray
    interval: Interval  # of the difference of means, over seeds and examples where both have several runs
    interval_over_examples: Interval
    tests: list[Test]
    corrected: list[float | None]  # p-values of the tests, corrected over all comparisons made together
    repeats: str  # what the scores vary over: seeds, folds or few-shot samples
    seeds_needed: int | None  # runs of each system (seeds, folds, samples) that would find a difference of this size
    examples_needed: int | None

    @property
    def difference(self) -> float:
        """Mean score of the first system less that of the second."""
        runs = (len(self.scores), len(self.other_scores))
        return float(contrast(np.concatenate([self.scores, self.other_scores]), runs))


def compare_groups(a: RunGroup, b: RunGroup, split: str, pooled: Pool, seed: int = 0) -> Comparison:
    """All that two groups of a pool allow to say of each other, not yet corrected."""
    scores, other_scores = a.scores(split), b.scores(split)
    repeated = a.repeated(split), b.repeated(split)  # a few-shot sample counts once
    counts, runs, replicates = pooled.of(a, b)
    repeats = " and ".join(sorted({a.repeats, b.repeats}))
    draws = over_both(counts, runs, replicates, seed, [*a.blocks, *b.blocks], repeats)
    tests = list(applicable_tests(counts, runs, replicates, seed))
    if min(runs) > 1:
        tests.insert(0, paired_tests.over_seeds_and_examples(draws))
        tests.append(paired_tests.almost_stochastic_order(*repeated, seed=seed, over=repeats))
    difference, error = float(contrast(counts.metrics, runs)), float(contrast(replicates, runs).std())
    return Comparison(
        first=a,
        second=b,
        split=split,
        examples=len(counts.ids),
        scores=scores,
        other_scores=other_scores,
        interval=draws.interval(),
        interval_over_examples=over_examples(counts, runs, replicates),
        tests=tests,
        corrected=[test.p_value for test in tests],
        repeats=repeats,
        seeds_needed=seeds_needed(*repeated),
        examples_needed=examples_needed(difference, error, len(counts.ids)),
    )


def compare_over_folds(a: RunGroup, b: RunGroup, split: str) -> Comparison:
    """Two groups that were tested on the same folds. Raises UserError where the folds differ, or are fewer than two."""
    if a.folds != b.folds or len(a.folds) < 2:
        raise UserError(
            f"{a.system} has the folds {', '.join(map(str, a.folds))}, {b.system} {', '.join(map(str, b.folds))}: a "
            "comparison needs the same, two or more; train what is missing by data.fold=all."
        )
    scores, other_scores = a.repeated(split), b.repeated(split)
    sizes = a.mean_examples("train"), a.mean_examples(split)
    width = a.score.high - a.score.low
    interval = over_folds(scores - other_scores, *sizes, low=-width, high=width)
    test = paired_tests.over_folds(scores - other_scores, *sizes)
    return Comparison(
        first=a,
        second=b,
        split=split,
        examples=round(sizes[1] * len(a.folds)),
        scores=scores,
        other_scores=other_scores,
        interval=interval,
        interval_over_examples=interval,
        tests=[test],
        corrected=[test.p_value],
        repeats="folds",
        seeds_needed=None,
        examples_needed=None,
    )


def applicable_tests(counts: PairedCounts, runs: tuple[int, ...], replicates: np.ndarray, seed: int) -> Iterator[Test]:
    """The tests over examples: randomisation takes equally many runs, McNemar's one each and right or wrong answers."""
    yield paired_tests.paired_bootstrap(counts, runs, replicates)
    if runs[0] == runs[1]:
        yield paired_tests.randomisation(counts, len(replicates), seed)
    right = counts.values[..., 0]
    answers = counts.values.shape[-1] == 2 and (counts.values[..., 1] == 1).all() and np.isin(right, (0, 1)).all()
    if runs == (1, 1) and answers:
        yield paired_tests.mcnemar(right[0], right[1])


def with_corrections(comparisons: Sequence[Comparison], correction: Correction) -> list[Comparison]:
    """The comparisons with the p-values of each test corrected over all of them."""
    families: dict[str, list[tuple[int, int, float]]] = {}
    for i, comparison in enumerate(comparisons):
        for j, test in enumerate(comparison.tests):
            if test.p_value is not None:
                families.setdefault(test.name.split(" (")[0], []).append((i, j, test.p_value))
    values_by_test: list[list[float | None]] = [[None] * len(comparison.tests) for comparison in comparisons]
    for members in families.values():
        values = corrected([p for _, _, p in members], correction)
        for (i, j, _), value in zip(members, values, strict=True):
            values_by_test[i][j] = value
    return [
        replace(comparison, corrected=values) for comparison, values in zip(comparisons, values_by_test, strict=True)
    ]


def p_text(p: float) -> str:
    """Three decimals; smaller values as a power of ten."""
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"
