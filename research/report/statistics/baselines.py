"""Baselines of every data set of a report: what answers score that know nothing of the text."""

from __future__ import annotations

from dataclasses import dataclass

from research.metrics.baselines import baseline_scores
from research.report.groups import Grid, RunGroup, runs_with_predictions
from research.tracking import predictions


@dataclass(frozen=True)
class Baseline:
    """One score of answers that know nothing."""

    name: str
    group: RunGroup  # one that is scored on the same examples
    split: str
    value: float


def baselines(grid: Grid) -> list[Baseline]:
    """The baselines of every data set and reported split whose metric has labels and whose predictions are there."""
    found = []
    for data_set in grid.data_sets:
        groups = [group for group in grid.groups if group.data_set == data_set and runs_with_predictions(group)]
        for split in dict.fromkeys(("validation", groups[0].split) if groups else ()):
            run = next((run for run in groups[0].runs if split in run.splits), None)
            table = run.predictions(split) if run is not None else None
            metric = predictions.known_metric(table) if table is not None else None
            if table is None or metric is None:
                continue
            for name, scores in baseline_scores(table, metric).items():
                if groups[0].metric in scores:
                    found.append(Baseline(name, groups[0], split, scores[groups[0].metric]))
    return found
