"""`research compare`: is A better than B, on each data set that both have? From two lists of runs to text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from research.common.errors import UserError
from research.common.text import counted, signed
from research.report.findings import empty_scores
from research.report.grouping import group_runs, refuse_mixed, refuse_other_tasks, table_records
from research.report.groups import RunGroup, with_distinct_texts
from research.report.records import Record, with_distinct_names
from research.report.settings import differing_keys, keys_of_systems
from research.report.statistics.comparison import (
    Comparison,
    compare_groups,
    compare_over_folds,
    p_text,
    with_corrections,
)
from research.report.statistics.intervals import NOTHING, Interval
from research.report.statistics.paired_tests import Correction
from research.report.statistics.pool import pool_runs, refuse_changed_scores
from research.report.statistics.power import ALPHA, POWER
from research.report.statistics.resampling import RESAMPLES
from research.report.tables.scores import score_text
from research.tracking import own_code


@dataclass(frozen=True, repr=False)
class ComparedRuns:
    """What two lists of runs allow to say of each other."""

    comparisons: list[Comparison]
    correction: Correction
    notes: list[str]  # runs that could not be compared, and why; scores that say nothing

    def __repr__(self) -> str:
        return comparison_text(self)


def compare_runs(
    first: Sequence[Record],
    second: Sequence[Record],
    *,
    metric: str | None = None,
    split: str | None = None,
    resamples: int = RESAMPLES,
    correction: Correction = "holm",
    seed: int = 0,
) -> ComparedRuns:
    """Compare the system of the `first` runs with each system of the `second`, on each data set that both have.

    p-values are corrected for the number of comparisons, test by test. Raises UserError where `first` holds several
    systems, nothing is in common, tasks or test sets differ, or predictions are missing, edited or cannot be paired.
    """
    own, other = grouped_sides(first, second, metric)
    comparisons, notes = [], left_out(own, other)
    for a, b in paired_groups(own, other):
        chosen = split or a.split
        notes += other_files(a, b)
        notes += [note for side in (a, b) for note in empty_scores(side, chosen) if note not in notes]
        if a.folds:
            refuse_changed_scores([a, b], chosen)
            comparisons.append(compare_over_folds(a, b, chosen))
        else:
            comparisons.append(compare_groups(a, b, chosen, pool_runs([a, b], chosen, resamples, seed), seed))
    return ComparedRuns(with_corrections(comparisons, correction), correction, notes)


def grouped_sides(
    first: Sequence[Record], second: Sequence[Record], metric: str | None
) -> tuple[list[RunGroup], list[RunGroup]]:
    """The groups of both sides, named apart by the settings in which the sides differ, or by their seeds."""
    first, second = table_records(first), table_records(second)
    named = with_distinct_names([*first, *second])
    first, second = named[: len(first)], named[len(first) :]
    refuse_other_tasks(named)
    keys = keys_of_systems(differing_keys(named))
    own, other = (group_runs(records, keys, metric, beside=named).groups for records in (first, second))
    groups = with_distinct_texts([*own, *other])
    own, other = groups[: len(own)], groups[len(own) :]
    if {g.system for g in own} & {g.system for g in other}:  # the same settings: other seeds, or another attempt
        own, other = ([_with_seeds(g) for g in side] for side in (own, other))
    return own, other


def _with_seeds(group: RunGroup) -> RunGroup:
    seeds = ", ".join(dict.fromkeys(str(run.seed) for run in group.runs))
    return replace(group, texts={**group.texts, "seed" if len(group.runs) == 1 else "seeds": seeds})


def paired_groups(own: Sequence[RunGroup], other: Sequence[RunGroup]) -> Iterator[tuple[RunGroup, RunGroup]]:
    """The groups to compare: each system of the other side with the one of the own side on the same data set."""
    data_sets = list(dict.fromkeys(g.data_set for g in own))
    for data_set in data_sets:
        systems = [g for g in own if g.data_set == data_set]
        if len(systems) > 1:
            raise UserError(
                f"The runs before --against are {len(systems)} systems on '{data_set}' "
                f"({' | '.join(g.system for g in systems)}); name the runs of one."
            )
    common = [data_set for data_set in data_sets if any(g.data_set == data_set for g in other)]
    if not common:
        sides = (", ".join(f"{g.data_set} ({g.task})" for g in side) for side in (own, other))
        raise UserError(f"The two sides have no data set in common: {' against '.join(sides)}.")
    for data_set in common:
        a = next(g for g in own if g.data_set == data_set)
        for b in (g for g in other if g.data_set == data_set):
            refuse_mixed([a, b])
            for side in (a, b):
                if not side.runs:
                    raise UserError(
                        f"No run of {side.system} on '{data_set}' is finished; there is nothing to compare."
                    )
            yield a, b


def left_out(own: Sequence[RunGroup], other: Sequence[RunGroup]) -> list[str]:
    """A sentence for each data set that one side alone has."""
    sides = {"before": ({g.data_set for g in other}, own), "after": ({g.data_set for g in own}, other)}
    return [
        f"Not compared: the {counted(len(g.runs), 'finished run')} of {g.system} on {g.data_set} "
        f"({g.task}) {place} --against, for the other side has none on it."
        for place, (known, groups) in sides.items()
        for g in groups
        if g.data_set not in known
    ]


def other_files(a: RunGroup, b: RunGroup) -> list[str]:
    """A sentence for each of the user's own component files of which the two systems used different versions."""
    first, second = (own_code.versions(side.runs[0].provenance) for side in (a, b))
    return [
        f"{a.system} and {b.system} were trained with different files of {name} (sha256 "
        f"{', '.join(each[:12] for each in first[name])} and {', '.join(each[:12] for each in second[name])}); each "
        f"run keeps its own in {own_code.FOLDER}/."
        for name in first.keys() & second.keys()
        if first[name] != second[name]
    ]


def comparison_text(found: ComparedRuns) -> str:
    """What `research compare` prints: each comparison, what was left out, and a verdict on each data set."""
    family = len(found.comparisons)
    parts = [_text(comparison, family, found.correction) for comparison in found.comparisons]
    return "\n".join([*parts, *found.notes, *(verdict(comparison, family) for comparison in found.comparisons)])


def verdict(c: Comparison, family: int = 1) -> str:
    """What may be said of the two systems, in one sentence."""
    p_value = next((p for p in c.corrected if p is not None), 1.0)
    is_first = (c.difference > 0) != c.first.score.smaller_is_better
    better, worse = (c.first, c.second) if is_first else (c.second, c.first)
    evidence = (
        f"95 % interval of the difference {_range(c.interval)} points, p = {p_text(p_value)}"
        f"{f' corrected over {family} comparisons' if family > 1 else ''}, over {c.interval.over}"
    )
    where = f"{c.first.data_set} ({c.split} {c.first.score.label})"
    single = "" if min(len(c.scores), len(c.other_scores)) > 1 else " A single run: other seeds may differ."
    if p_value < ALPHA:
        return f"Verdict: on {where} {better.system} is better than {worse.system} ({evidence}).{single}"
    pair = f"{c.first.system} and {c.second.system}"
    return f"Verdict: on {where} no difference between {pair} is shown ({evidence}).{single}"


def _text(c: Comparison, family: int, correction: Correction) -> str:
    a, b = c.first, c.second
    lines = [f"{a.data_set}, {c.split} {a.score.label}, per cent"]
    for name, side, scores in (("A", a, c.scores), ("B", b, c.other_scores)):
        deviation = float(scores.std(ddof=1)) if len(scores) > 1 else None
        runs = f"{len(side.folds)} folds, {len(side.runs)} runs" if side.folds else f"{len(scores)} runs"
        runs = runs if len(side.runs) > 1 else "single run"
        lines.append(f"  {name}  {score_text(float(scores.mean()), deviation)}  {side.system} ({runs}){_others(side)}")
    alone = f"; {_range(c.interval_over_examples)} over {c.interval_over_examples.over} alone (BCa)"
    lines += [
        f"  A - B = {_points(c.difference)} points, 95 % interval {_range(c.interval)} over {c.interval.over}"
        + (alone if c.interval.over != c.interval_over_examples.over else ""),
        f"  {c.examples:,} {c.split} examples in {len(a.folds)} folds, paired by fold"
        if a.folds
        else f"  {c.examples:,} {c.split} {c.interval_over_examples.over}, paired by id{_data(c)}",
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
        lines += [f"  {test.name}: {said}", f"      assumes: {test.assumes}"]
    return "\n".join([*lines, f"  {_power(c)}", ""])


def _data(c: Comparison) -> str:
    fingerprint = c.first.runs[0].fingerprint(c.split)
    return "" if fingerprint is None else f" (sha256 of the data {fingerprint[0][:12]}…)"


def _others(side: RunGroup) -> str:
    return f"; {len(side.others)} more not finished" if side.others else ""


def _points(difference: float) -> str:
    return signed(100 * difference, 2)


def _range(interval: Interval) -> str:
    return f"{_points(interval.low)} to {_points(interval.high)}"


def _power(c: Comparison) -> str:
    """How many seeds or examples a difference of the observed size needs."""
    if abs(c.difference) < NOTHING:
        return "power: there is no difference to find"
    if c.first.folds:
        return "power: not estimated over folds"
    ways = []
    if c.seeds_needed is not None:
        ways.append(f"{c.seeds_needed:,} {c.repeats} of each system (t-test over {c.repeats})")
    if c.examples_needed is not None:
        ways.append(f"{c.examples_needed:,} {c.split} examples (paired test, these runs)")
    return f"power: a difference of this size is found with probability {100 * POWER:.0f} % by {' or '.join(ways)}"
