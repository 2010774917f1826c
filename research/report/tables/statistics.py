"""Tables of what the statistics say: intervals, each system beside the best, sources of variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.common.text import signed
from research.report.groups import Grid, RunGroup, leading_groups
from research.report.statistics.comparison import (
    Comparison,
    compare_groups,
    compare_over_folds,
    p_text,
    with_corrections,
)
from research.report.statistics.pool import Pool
from research.report.statistics.power import POWER
from research.report.statistics.summary import Summary
from research.report.statistics.variance import VarianceSplit, split_by_sample, split_variance
from research.report.tables.cells import Cell, Table, cell, make_table

MOST_SYSTEMS = 10  # of a data set: more comparisons would not be read


def statistics_tables(grid: Grid, summaries: Sequence[Summary], pooled: Mapping[str, Pool]) -> list[Table]:
    """All tables of evidence, those that would be empty left out."""
    comparisons = beside_best(grid, summaries, pooled)
    made = (
        interval_table(summaries),
        comparison_table(comparisons),
        significance_table(comparisons),
        variance_table(pooled),
    )
    return [table for table in made if table.rows]


def interval_table(summaries: Sequence[Summary]) -> Table:
    """Mean and 95 % interval of each group that has one."""
    rows = []
    for s in summaries:
        if s.interval is not None:
            paths = s.group.paths
            numbers = [_points(value, paths) for value in (s.mean, s.deviation, s.interval.low, s.interval.high)]
            rows.append(
                [
                    s.group.system,
                    s.group.data_set,
                    *_what(s.group, s.split),
                    len(s.group.runs),
                    *numbers,
                    s.interval.over,
                ]
            )
    columns = ("system", "data set", "score", "split", "runs", "mean", "deviation", "low", "high", "interval over")
    caption = (
        "Per cent, with 95 % intervals of the mean: over folds by the corrected resampled t test (Nadeau & Bengio "
        "2003), else of a share of examples Wilson's, or by the bootstrap."
    )
    return make_table("Intervals", columns, rows, caption)


def beside_best(grid: Grid, summaries: Sequence[Summary], pooled: Mapping[str, Pool]) -> list[Comparison]:
    """The best system of each data set against the others, corrected by Holm's method over all of them."""
    found = []
    for data_set in grid.data_sets:
        column = [s for s in summaries if s.group.data_set == data_set and s.split == s.group.split]
        for best in (s.group for s in column if s.mark == "best"):
            others = [group for group in leading_groups(grid, data_set, MOST_SYSTEMS) if group is not best]
            if data_set in pooled:
                found += [compare_groups(best, other, best.split, pooled[data_set]) for other in others]
            elif len(best.folds) > 1:
                alike = [other for other in others if other.folds == best.folds]
                found += [compare_over_folds(best, other, best.split) for other in alike]
    return with_corrections(found, "holm")


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """One row a comparison: the difference, its interval, power."""
    rows = []
    for c in comparisons:
        paths = (*c.first.paths, *c.second.paths)
        limits = [_points(value, paths, has_sign=True) for value in (c.difference, c.interval.low, c.interval.high)]
        sizes = [cell(size, paths) for size in (c.seeds_needed, c.examples_needed)]
        rows.append([*_sides(c), c.examples, *limits, c.interval.over, *sizes])
    columns = ["data set", "A", "B", "examples", "A - B", "low", "high", "interval over"]
    columns += ["seeds needed", "examples needed"]
    caption = (
        "The best system of each data set (A) beside the others, in points; examples paired by id. Needed: to find a "
        f"difference of this size with probability {100 * POWER:.0f} %."
    )
    return make_table("The best beside the others", columns, rows, caption)


def significance_table(comparisons: Sequence[Comparison]) -> Table:
    """One row a comparison: the p-value of each test, raw and corrected, and almost stochastic order."""
    names = list(dict.fromkeys(_family(test.name) for c in comparisons for test in c.tests if test.p_value is not None))
    columns = ["data set", "A", "B", *(column for name in names for column in (name, "Holm"))]
    plural = "" if len(comparisons) == 1 else "s"
    assumed = {_family(test.name): test.assumes for c in comparisons for test in c.tests}
    caption = (
        f"p-values, raw and corrected over {len(comparisons)} comparison{plural} by Holm's method. Assumptions: "
        f"{'; '.join(f'{name}: {what}' for name, what in assumed.items())}."
    )
    rows = [_test_row(c, names) for c in comparisons]
    return make_table("Tests of the best against the others", [*columns, "almost stochastic order"], rows, caption)


def _test_row(c: Comparison, names: Sequence[str]) -> list[Any]:
    values = {
        _family(t.name): (t.p_value, p) for t, p in zip(c.tests, c.corrected, strict=True) if t.p_value is not None
    }
    order = next((test.detail for test in c.tests if test.p_value is None), "")
    paths = (*c.first.paths, *c.second.paths)
    return [*_sides(c), *(_p(value, paths) for name in names for value in values.get(name, (None, None))), order]


def _sides(c: Comparison) -> tuple[str, str, str]:
    return c.first.data_set, c.first.system, c.second.system


SOURCES = ("few-shot sample", "seed", "initialisation", "data order", "both together, rest", "sample of examples")


def variance_table(pooled: Mapping[str, Pool]) -> Table:
    """Standard deviation of a single run's score by source, for groups of several runs; a source that none of them
    tells apart has no column."""
    groups = [(group, runs) for runs in pooled.values() for group in runs.groups if len(group.runs) > 1]
    splits = [_variance(group, runs) for group, runs in groups]
    found = [(s.shots, s.seed, s.initialisation, s.order, s.both, s.sampling) for s in splits]
    told = [i for i in range(len(SOURCES)) if any(parts[i] is not None for parts in found)]
    reasons = list(dict.fromkeys(split.why for split in splits))
    caption = "Standard deviation of a single run's score, in points, by where it comes from."
    if len(reasons) == 1:
        caption += f" All: {reasons[0]}."
    rows = []
    for (group, _), parts, split in zip(groups, found, splits, strict=True):
        points = [_points(parts[i], group.paths) for i in told]
        why = [split.why] if len(reasons) > 1 else []
        rows.append([group.system, group.data_set, len(group.runs), *points, *why])
    columns = ["system", "data set", "runs", *(SOURCES[i] for i in told)]
    return make_table("Sources of variance", [*columns, *(["because"] if len(reasons) > 1 else [])], rows, caption)


def _variance(group: RunGroup, runs: Pool) -> VarianceSplit:
    inits, orders = (
        [run.seed if run.config[key] is None else int(run.config[key]) for run in group.runs]
        for key in ("seed_init", "seed_order")
    )
    _, _, replicates = runs.of(group)
    if len(group.samples) > 1:
        sampling = float(np.sqrt(replicates.var(axis=0).mean()))
        return split_by_sample(group.blocks, group.scores(group.split), sampling)
    return split_variance(inits, orders, group.scores(group.split), replicates)


def _family(name: str) -> str:
    return name.split(" (")[0]


def _what(group: RunGroup, split: str) -> tuple[str, str]:
    return group.score.label, split


def _points(value: float | None, runs: Sequence[Path], has_sign: bool = False) -> Cell:
    """A fraction in per cent with two decimals; its value stays the fraction."""
    if value is None:
        return Cell("")
    return Cell(signed(100 * value, 2) if has_sign else f"{100 * value:z.2f}", value, tuple(runs))


def _p(value: float | None, runs: Sequence[Path]) -> Cell:
    return Cell("") if value is None else Cell(p_text(value), value, tuple(runs))
