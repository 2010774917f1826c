"""The numbers of the main table: mean, deviation and interval of each group, and which are as good as the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from research.common.errors import UserError
from research.report.groups import Grid, RunGroup
from research.report.records import ChangedRun
from research.report.statistics.folds import fold_p_value, over_folds
from research.report.statistics.intervals import Interval, over_both
from research.report.statistics.paired_tests import corrected
from research.report.statistics.pool import Pool, pool_runs, refuse_changed_scores
from research.report.statistics.resampling import RESAMPLES

ALPHA = 0.05


@dataclass(frozen=True)
class Summary:
    """One group's scores on one split."""

    group: RunGroup
    split: str
    scores: np.ndarray  # one per run, or per fold, fractions; none where no run is finished
    interval: Interval | None = None  # of the mean, over seeds and examples, or over folds
    p_value: float | None = None  # of being equal to the best of its column, corrected over the table
    mark: Literal["", "best", "tied"] = ""

    @property
    def mean(self) -> float | None:
        return float(self.scores.mean()) if len(self.scores) else None

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation over runs, or folds; None for a single one."""
        return float(self.scores.std(ddof=1)) if len(self.scores) > 1 else None


def pools(grid: Grid) -> tuple[dict[str, Pool], list[str]]:
    """The pool of each data set, and for those whose predictions do not serve a note that says why.

    Raises ChangedRun where predictions or scores were changed after their run.
    """
    found, notes = {}, []
    for data_set in grid.data_sets:
        groups = [group for group in grid.groups if group.data_set == data_set and group.runs]
        if not groups:
            continue
        if groups[0].folds:
            refuse_changed_scores(groups, groups[0].split)
            refuse_changed_scores(groups, "validation")
            notes.append(f"{data_set}: figures and error analysis of examples are of fold {groups[0].folds[0]} alone.")
            continue
        try:
            found[data_set] = pool_runs(groups, groups[0].split, RESAMPLES)
            refuse_changed_scores(groups if groups[0].split != "validation" else [], "validation")
        except ChangedRun:
            raise
        except UserError as error:
            notes.append(f"{data_set}: no intervals and no tests. {error}")
    return found, notes


def summarise(grid: Grid, pooled: dict[str, Pool]) -> list[Summary]:
    """Summaries of every group, on validation and on the reported split; the latter with intervals and marks.

    Each group is compared with the best of its column by the bootstrap over seeds and examples (over examples alone
    where either has a single run), or by the corrected resampled t test over folds; corrected by Holm's method over the
    whole table.
    """
    summaries: list[Summary] = []
    for data_set in grid.data_sets:
        groups = [group for group in grid.groups if group.data_set == data_set]
        if groups[0].split != "validation":
            summaries += [_plain(group, "validation") for group in groups]
        summaries += _beside_best([_plain(group, group.split) for group in groups], pooled.get(data_set))
    return _with_ties(summaries)


def _plain(group: RunGroup, split: str) -> Summary:
    unvalidated = split == "validation" and not any(run.scores(split) for run in group.runs)
    return Summary(group, split, np.array([]) if unvalidated or not group.runs else group.repeated(split))


def _beside_best(column: Sequence[Summary], pooled: Pool | None) -> list[Summary]:
    """The column with its best marked and, where there is a pool, intervals and p-values, not yet corrected."""
    known = [s for s in column if s.mean is not None]
    best = max(known, key=_goodness).group if len(known) > 1 else None
    marked = []
    for each in column:
        if each.group.folds:
            each = _of_folds(each, best)
        if each.mean is not None and pooled is not None:
            group = each.group
            interval = over_both(*pooled.of(group), blocks=group.blocks, repeats=group.repeats).interval()
            each = replace(each, interval=interval)
            if best is not None and each.group is not best:
                blocks = [*best.blocks, *each.group.blocks]
                each = replace(each, p_value=over_both(*pooled.of(best, each.group), blocks=blocks).p_value)
        marked.append(replace(each, mark="best") if each.group is best else each)
    return marked


def _of_folds(each: Summary, best: RunGroup | None) -> Summary:
    """With an interval over the folds, and the p-value of being equal to the best on the same folds."""
    group = each.group
    if len(group.folds) < 2:
        return each
    sizes = group.mean_examples("train"), group.mean_examples(each.split)
    interval = over_folds(each.scores, *sizes, low=group.score.low, high=group.score.high)
    if best is None or best is group or best.folds != group.folds:
        return replace(each, interval=interval)
    return replace(each, interval=interval, p_value=fold_p_value(best.repeated(each.split) - each.scores, *sizes))


def _goodness(summary: Summary) -> float:
    """The mean, negative where less is better."""
    mean = summary.mean or 0.0
    return -mean if summary.group.score.smaller_is_better else mean


def _with_ties(summaries: Sequence[Summary]) -> list[Summary]:
    """The summaries with corrected p-values, and those marked that are not significantly worse than the best."""
    p_values = iter(corrected([s.p_value for s in summaries if s.p_value is not None], "holm"))
    marked = []
    for each in summaries:
        if each.p_value is not None:
            p_value = next(p_values)
            each = replace(each, p_value=p_value, mark="tied" if p_value >= ALPHA else "")
        marked.append(each)
    return marked
