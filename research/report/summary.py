"""The numbers of the main table: mean, deviation and interval of each group, and which are as good as the best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa

from research.errors import UserError
from research.report.groups import Grid, Group
from research.report.records import Record
from research.report.statistics.counts import PairedCounts, paired
from research.report.statistics.intervals import Interval, over_both
from research.report.statistics.resampling import bootstrap
from research.report.statistics.significance import corrected

ALPHA = 0.05
RESAMPLES = 2_000  # of the marks; `research compare` takes more


@dataclass(frozen=True)
class Summary:
    """One group's scores on one split."""

    group: Group
    split: str
    scores: np.ndarray  # one per run, fractions; none where no run is finished
    interval: Interval | None = None  # of the mean, over seeds and examples
    p_value: float | None = None  # of being equal to the best of its column, corrected
    mark: Literal["", "best", "tied"] = ""

    @property
    def mean(self) -> float | None:
        return float(self.scores.mean()) if len(self.scores) else None

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation over runs; None for a single run."""
        return float(self.scores.std(ddof=1)) if len(self.scores) > 1 else None


def summarise(grid: Grid) -> tuple[list[Summary], list[str]]:
    """Summaries of every group on the validation and the reported split, and notes on what could not be told."""
    summaries, notes = [], []
    for data_set in grid.data_sets:
        groups = [group for group in grid.groups if group.data_set == data_set]
        reported = [_plain(group, group.split) for group in groups]
        if groups[0].split != "validation":
            summaries += [_plain(group, "validation") for group in groups]
        try:
            reported = marked(reported)
        except UserError as error:
            notes.append(f"{data_set}: no intervals and no test beside the best: {error}")
            reported = _best_alone(reported)
        summaries += reported
    return summaries, notes


def _plain(group: Group, split: str) -> Summary:
    tuned_on_nothing = split == "validation" and not any(run.scores(split) for run in group.runs)
    scores = np.array([]) if tuned_on_nothing or not group.runs else group.scores(split)
    return Summary(group, split, scores)


def marked(column: Sequence[Summary]) -> list[Summary]:
    """The summaries of one data set with intervals, the best, and those not significantly worse than it.

    Each is compared with the best by the bootstrap over seeds and examples (over examples alone where either has a
    single run), corrected by Holm's method. Raises UserError where the predictions do not serve.
    """
    present = [summary for summary in column if len(summary.scores)]
    if not present:
        return list(column)
    counts = pooled_counts([summary.group for summary in present], present[0].split)
    replicates = bootstrap(counts, RESAMPLES)  # (B, R)
    places = _places(present)
    best = max(range(len(present)), key=lambda i: float(present[i].scores.mean()))
    intervals = [over_both(part(counts, place), (len(place),), replicates[:, place]).interval() for place in places]
    rivals = [i for i in range(len(present)) if i != best]
    p_values = []
    for i in rivals:
        both = [*places[best], *places[i]]
        runs = len(places[best]), len(places[i])
        p_values.append(over_both(part(counts, both), runs, replicates[:, both]).p_value)
    told = {best: (None, "best")} | {
        i: (p, "tied" if p >= ALPHA else "") for i, p in zip(rivals, corrected(p_values, "holm"), strict=True)
    }
    done = {
        id(summary): replace(summary, interval=intervals[i], p_value=told[i][0], mark=told[i][1])  # type: ignore[arg-type]
        for i, summary in enumerate(present)
    }
    return [done.get(id(summary), summary) for summary in column]


def _best_alone(column: Sequence[Summary]) -> list[Summary]:
    best = max((s.mean for s in column if s.mean is not None), default=None)
    return [replace(s, mark="best") if s.mean is not None and s.mean == best else s for s in column]


def pooled_counts(groups: Sequence[Group], split: str) -> PairedCounts:
    """Counts of the runs of several groups on one data set, group after group.

    Raises UserError where predictions are missing or edited, cannot be paired, or do not give the recorded scores.
    """
    runs = [run for group in groups for run in group.runs]
    metric = groups[0].metric
    counts = paired(_tables(runs, split), metric)
    for run, value in zip(runs, counts.metrics, strict=True):
        recorded = run.scores(split)[metric]
        if abs(recorded - value) > 1e-9:
            raise UserError(
                f"The predictions of {run.path} give a {split} {metric} of {value:.6f}, its result.json says "
                f"{recorded:.6f}: one of them was changed after the run."
            )
    return counts


def part(counts: PairedCounts, runs: Sequence[int]) -> PairedCounts:
    """The counts of some of the runs."""
    return PairedCounts(counts.ids, counts.values[list(runs)], counts.score)


def _tables(runs: Sequence[Record], split: str) -> Iterator[tuple[str, pa.Table]]:
    for run in runs:
        yield str(run.path), run.predictions(split)


def _places(summaries: Sequence[Summary]) -> list[list[int]]:
    """Which of the pooled runs belong to each summary."""
    ends = np.cumsum([len(summary.scores) for summary in summaries]).tolist()
    return [list(range(end - len(summary.scores), end)) for summary, end in zip(summaries, ends, strict=True)]
