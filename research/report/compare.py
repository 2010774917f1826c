"""`research compare`: is A better than B, on each data set that both have? From two lists of runs to text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from research.common.errors import UserError
from research.report.grouping import group_runs, refuse_mixed, table_records
from research.report.groups import Group
from research.report.records import Record
from research.report.settings import DATA_KEYS, differing_keys
from research.report.statistics.comparison import Comparison, compare_groups, p_text, with_corrections
from research.report.statistics.intervals import NOTHING, Interval
from research.report.statistics.paired_runs import pool_runs
from research.report.statistics.power import POWER
from research.report.statistics.resampling import RESAMPLES
from research.report.statistics.significance import Correction
from research.report.tables.scores import metric_name, score_text


def compare_runs(
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
        comparisons.append(compare_groups(a, b, chosen, pool_runs([a, b], chosen, resamples, seed), seed))
    return with_corrections(comparisons, correction)


def paired_groups(
    first: Sequence[Record], second: Sequence[Record], metric: str | None
) -> Iterator[tuple[Group, Group]]:
    """The groups to compare: each system of `second` with the one of `first` on the same data set."""
    first, second = table_records(first), table_records(second)
    keys = [key for key in differing_keys([*first, *second]) if key not in DATA_KEYS]
    own, other = (group_runs(records, keys, metric) for records in (first, second))
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


def comparison_text(comparisons: Sequence[Comparison], correction: Correction) -> str:
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
