"""All runs on one data set, their counts read once and resampled together, so that every comparison is paired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from research.report.groups import RunGroup
from research.report.records import ChangedRun, Record
from research.report.statistics.paired_counts import PairedCounts, paired
from research.report.statistics.resampling import bootstrap
from research.tracking import predictions

SCORE_TOLERANCE = 1e-9  # scorers may sum in another order


@dataclass(frozen=True)
class Pool:
    """Runs (R of them) of several groups, group after group."""

    groups: list[RunGroup]
    counts: PairedCounts
    replicates: np.ndarray  # (B, R): the runs' metrics on bootstrap resamples of the examples

    def of(self, *groups: RunGroup) -> tuple[PairedCounts, tuple[int, ...], np.ndarray]:
        """Counts, numbers of runs and replicates of some of the groups, as the statistics take them."""
        places = [place for group in groups for place in self._places(group)]
        counts = replace(self.counts, values=self.counts.values[places])
        return counts, tuple(len(group.runs) for group in groups), self.replicates[:, places]

    def _places(self, group: RunGroup) -> range:
        start = 0
        for other in self.groups:
            if other is group:
                return range(start, start + len(group.runs))
            start += len(other.runs)
        raise ValueError("the group is not in the pool")


def pool_runs(groups: Sequence[RunGroup], split: str, resamples: int, seed: int = 0) -> Pool:
    """Read and resample the predictions of the groups' runs.

    Raises UserError where a run lacks the metric, and where predictions are missing or edited, cannot be paired, or
    do not give the recorded scores.
    """
    runs = [run for group in groups for run in group.runs]
    metric = groups[0].metric
    for group in groups:
        group.scores(split)  # tells which run lacks the metric
    counts = paired(_tables(runs, split), metric, runs[0].config["data"]["cluster"])
    for run, value in zip(runs, counts.metrics, strict=True):
        refuse_changed_score(run, split, metric, float(value))
    return Pool(list(groups), counts, bootstrap(counts, resamples, seed))


def refuse_changed_score(run: Record, split: str, metric: str, value: float) -> None:
    """Raise ChangedRun unless the recorded score is the one that the predictions give."""
    recorded = run.scores(split)[metric]
    if not isinstance(recorded, int | float) or abs(recorded - value) > SCORE_TOLERANCE:
        raise ChangedRun(
            f"The predictions of {run.path} give a {split} {metric} of {value:.6f}, its result.json says {recorded}: "
            "one of them was changed after the run. Restore it, or take the run out of the report."
        )


def refuse_changed_scores(groups: Sequence[RunGroup], split: str) -> None:
    """Raise ChangedRun where the score of a split is not the one that the run's predictions give."""
    for group in groups:
        for run in group.runs:
            if split in run.splits and group.metric in run.scores(split):
                table = run.predictions(split)
                value = predictions.metric(table).count(table, group.metric).metric
                refuse_changed_score(run, split, group.metric, value)


def _tables(runs: Sequence[Record], split: str) -> Iterator[tuple[str, pa.Table]]:
    for run in runs:
        yield str(run.path), run.predictions(split)
