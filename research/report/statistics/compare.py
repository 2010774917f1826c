"""Is A better than B? Differences with their intervals, tests, corrections and power, from the runs' predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from research.common.errors import UserError
from research.report.groups import DATA_KEYS, Group, differing, group, refuse_mixed, shown_records
from research.report.records import Record
from research.report.statistics import significance
from research.report.statistics.counts import PairedCounts
from research.report.statistics.intervals import NOTHING, Interval, contrast, over_both, over_examples
from research.report.statistics.paired_runs import Pool, pool
from research.report.statistics.power import POWER, examples_needed, seeds_needed
from research.report.statistics.resampling import RESAMPLES
from research.report.statistics.significance import Correction, Test, corrected
from research.report.tables.scores import metric_name, score_text


@dataclass(frozen=True)
class Comparison:
    """One system against another on one data set."""

    first: Group
    second: Group
    split: str
    examples: int  # paired by id
    scores: np.ndarray  # one per run, fractions
    other_scores: np.ndarray
    interval: Interval  # of the difference of means, over seeds and examples where both have several runs
    interval_over_examples: Interval
    tests: list[Test]
    corrected: list[float | None]  # p-values of the tests, corrected over all comparisons made together
    seeds_needed: int | None  # runs of each system that would find a difference of this size
    examples_needed: int | None

    @property
    def difference(self) -> float:
        """Mean score of the first system less that of the second."""
        runs = (len(self.scores), len(self.other_scores))
        return float(contrast(np.concatenate([self.scores, self.other_scores]), runs))


def compare(
    first: Sequence[Record],
    second: Sequence[Record],
    *,
    metric: str | None = None,
    split: str | None = None,
    resamples: int = RESAMPLES,
    correction: Correction = "holm",
    seed: int = 0,
) -> list[Comparison]:
    """Compare the system of the `first` runs with each system of the `second`, on each data set that both have.

    p-values are corrected for the number of comparisons, test by test. Raises UserError where `first` holds several
    systems, nothing is in common, tasks or test sets differ, or predictions are missing, edited or cannot be paired.
    """
    pairs = list(paired_groups(first, second, metric))
    comparisons = []
    for a, b in pairs:
        chosen = split or a.split
        comparisons.append(compare_groups(a, b, chosen, pool([a, b], chosen, resamples, seed), seed))
    return with_corrections(comparisons, correction)


def paired_groups(
    first: Sequence[Record], second: Sequence[Record], metric: str | None
) -> Iterator[tuple[Group, Group]]:
    """The groups to compare: each system of `second` with the one of `first` on the same data set."""
    first, second = shown_records(first), shown_records(second)
    keys = [key for key in differing([*first, *second]) if key not in DATA_KEYS]
    own, other = (group(records, keys, metric) for records in (first, second))
    for data_set in own.data_sets:
        systems = [g for g in own.groups if g.data_set == data_set]
        if len(systems) > 1:
            raise UserError(
                f"The runs before --against are {len(systems)} systems on '{data_set}' "
                f"({' | '.join(g.system for g in systems)}); name the runs of one."
            )
    common = [data_set for data_set in own.data_sets if data_set in other.data_sets]
    if not common:
        sides = (", ".join(f"{g.data_set} ({g.task})" for g in table.groups) for table in (own, other))
        raise UserError(f"The two sides have no data set in common: {' against '.join(sides)}.")
    for data_set in common:
        a = next(g for g in own.groups if g.data_set == data_set)
        for b in (g for g in other.groups if g.data_set == data_set):
            refuse_mixed([a, b])
            for side in (a, b):
                if not side.runs:
                    raise UserError(
                        f"No run of {side.system} on '{data_set}' is finished; there is nothing to compare."
                    )
            yield a, b


def compare_groups(a: Group, b: Group, split: str, pooled: Pool, seed: int = 0) -> Comparison:
    """All that two groups of a pool allow to say of each other, not yet corrected."""
    scores, other_scores = a.scores(split), b.scores(split)
    counts, runs, replicates = pooled.of(a, b)
    draws = over_both(counts, runs, replicates, seed)
    tests = list(applicable_tests(counts, runs, replicates, seed))
    if min(runs) > 1:
        tests.insert(0, significance.over_seeds_and_examples(draws))
        tests.append(significance.almost_stochastic_order(scores, other_scores, seed=seed))
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
        seeds_needed=seeds_needed(scores, other_scores),
        examples_needed=examples_needed(difference, error, len(counts.ids)),
    )


def applicable_tests(counts: PairedCounts, runs: tuple[int, ...], replicates: np.ndarray, seed: int) -> Iterator[Test]:
    """The tests over examples: randomisation takes equally many runs, McNemar's one each and right or wrong answers."""
    yield significance.paired_bootstrap(counts, runs, replicates)
    if runs[0] == runs[1]:
        yield significance.randomisation(counts, len(replicates), seed)
    right = counts.values[..., 0]
    answers = counts.values.shape[-1] == 2 and (counts.values[..., 1] == 1).all() and np.isin(right, (0, 1)).all()
    if runs == (1, 1) and answers:
        yield significance.mcnemar(right[0], right[1])


def with_corrections(comparisons: Sequence[Comparison], correction: Correction) -> list[Comparison]:
    """The comparisons with the p-values of each test corrected over all of them."""
    families: dict[str, list[tuple[int, int, float]]] = {}
    for i, comparison in enumerate(comparisons):
        for j, test in enumerate(comparison.tests):
            if test.p_value is not None:
                families.setdefault(test.name.split(" (")[0], []).append((i, j, test.p_value))
    told: list[list[float | None]] = [[None] * len(comparison.tests) for comparison in comparisons]
    for members in families.values():
        values = corrected([p for _, _, p in members], correction)
        for (i, j, _), value in zip(members, values, strict=True):
            told[i][j] = value
    return [replace(comparison, corrected=values) for comparison, values in zip(comparisons, told, strict=True)]


# --- as text ------------------------------------------------------------------------------------------


def text(comparisons: Sequence[Comparison], correction: Correction) -> str:
    """What `research compare` prints."""
    return "\n".join(_text(comparison, len(comparisons), correction) for comparison in comparisons)


def _text(c: Comparison, family: int, correction: Correction) -> str:
    a, b = c.first, c.second
    lines = [f"{a.data_set}, {c.split} {metric_name(a.metric)}, per cent"]
    for name, side, scores in (("A", a, c.scores), ("B", b, c.other_scores)):
        deviation = float(scores.std(ddof=1)) if len(scores) > 1 else None
        runs = f"{len(scores)} runs" if len(scores) > 1 else "single run"
        lines.append(f"  {name}  {score_text(float(scores.mean()), deviation)}  {side.system} ({runs}){_others(side)}")
    lines += [
        f"  A - B = {_points(c.difference)} points, 95 % interval {_range(c.interval)} over {c.interval.over}"
        + ("" if c.interval.over == "examples" else f"; {_range(c.interval_over_examples)} over examples alone (BCa)"),
        f"  {c.examples:,} {c.split} examples, paired by id{_data(c)}",
    ]
    method = {"holm": "Holm", "bh": "Benjamini-Hochberg", "none": ""}[correction]
    for test, value in zip(c.tests, c.corrected, strict=True):
        if test.p_value is None:
            said = test.detail
        else:
            said = f"p = {p_text(test.p_value)}"
            if method and family > 1 and value is not None:
                said += f", {method} over {family}: p = {p_text(value)}"
            said += f" ({test.detail})"
        lines += [f"  {test.name}: {said}", f"      takes for granted: {test.assumes}"]
    return "\n".join([*lines, f"  {_power(c)}", ""])


def _data(c: Comparison) -> str:
    fingerprint = c.first.runs[0].fingerprint(c.split)
    return "" if fingerprint is None else f" (sha256 of the data {fingerprint[0][:12]}…)"


def _others(side: Group) -> str:
    return f"; {len(side.others)} more not finished" if side.others else ""


def p_text(p: float) -> str:
    """Three decimals; smaller values as a power of ten."""
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}"


def _range(interval: Interval) -> str:
    return f"{_points(interval.low)} to {_points(interval.high)}"


def _power(c: Comparison) -> str:
    """How many seeds or examples a difference of the observed size needs."""
    if abs(c.difference) < NOTHING:
        return "power: there is no difference to find"
    ways = []
    if c.seeds_needed is not None:
        ways.append(f"{c.seeds_needed:,} seeds of each system (t-test over seeds)")
    if c.examples_needed is not None:
        ways.append(f"{c.examples_needed:,} {c.split} examples (paired test, these runs)")
    return f"power: a difference of this size is found with probability {100 * POWER:.0f} % by {' or '.join(ways)}"
