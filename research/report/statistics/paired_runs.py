"""All runs on one data set, their counts read once and resampled together, so that every comparison is paired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from research.common.errors import UserError
from research.report.groups import Group
from research.report.records import Record
from research.report.statistics.pairing import PairedCounts, paired
from research.report.statistics.resampling import bootstrap


@dataclass(frozen=True)
class Pool:
    """Runs (R of them) of several groups, group after group."""

    groups: list[Group]
    counts: PairedCounts
    replicates: np.ndarray  # (B, R): the runs' metrics on bootstrap resamples of the examples

    def of(self, *groups: Group) -> tuple[PairedCounts, tuple[int, ...], np.ndarray]:
        """Counts, numbers of runs and replicates of some of the groups, as the statistics take them."""
        places = [place for group in groups for place in self._places(group)]
        counts = PairedCounts(self.counts.ids, self.counts.values[places], self.counts.score)
        return counts, tuple(len(group.runs) for group in groups), self.replicates[:, places]

    def _places(self, group: Group) -> range:
        start = 0
        for other in self.groups:
            if other is group:
                return range(start, start + len(group.runs))
            start += len(other.runs)
        raise ValueError("the group is not in the pool")


def pool_runs(groups: Sequence[Group], split: str, resamples: int, seed: int = 0) -> Pool:
    """Read and resample the predictions of the groups' runs.

    Raises UserError where a run lacks the metric, and where predictions are missing or edited, cannot be paired, or
    do not give the recorded scores.
    """
    runs = [run for group in groups for run in group.runs]
    metric = groups[0].metric
    for group in groups:
        group.scores(split)  # tells which run lacks the metric
    counts = paired(_tables(runs, split), metric)
    for run, value in zip(runs, counts.metrics, strict=True):
        recorded = run.scores(split)[metric]
        if abs(recorded - value) > 1e-9:
            raise UserError(
                f"The predictions of {run.path} give a {split} {metric} of {value:.6f}, its result.json says "
                f"{recorded:.6f}: one of them was changed after the run."
            )
    return Pool(list(groups), counts, bootstrap(counts, resamples, seed))


def _tables(runs: Sequence[Record], split: str) -> Iterator[tuple[str, pa.Table]]:
    for run in runs:
        yield str(run.path), run.predictions(split)
