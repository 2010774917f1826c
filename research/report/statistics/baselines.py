"""Baselines of every data set of a report: what answers score that know nothing of the text."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from research.metrics.baselines import Baselines
from research.report.groups import Grid, RunGroup, runs_with_predictions
from research.report.records import Record
from research.tracking import predictions


@dataclass(frozen=True)
class Baseline:
    """One score of answers that know nothing."""

    name: str
    group: RunGroup  # one that is scored on the same examples
    split: str
    value: float


def baselines(grid: Grid) -> list[Baseline]:
    """The baselines of every data set and reported split whose metric has some and whose predictions are there; over
    folds their mean."""
    found = []
    for data_set in grid.data_sets:
        groups = [group for group in grid.groups if group.data_set == data_set and runs_with_predictions(group)]
        for split in dict.fromkeys(("validation", groups[0].split) if groups else ()):
            values: dict[str, list[float]] = {}
            for run in {run.fold: run for run in reversed(groups[0].runs) if split in run.splits}.values():
                for name, scores in _of_run(run, split).items():
                    if groups[0].metric in scores:
                        values.setdefault(name, []).append(scores[groups[0].metric])
            found += [Baseline(name, groups[0], split, fmean(each)) for name, each in values.items()]
    return found


def _of_run(run: Record, split: str) -> Baselines:
    """As the run recorded them, which knew its training data, else from its predictions."""
    recorded: Baselines | None = ((run.result or {}).get("baselines") or {}).get(split)
    if recorded is not None:
        return recorded
    table = run.predictions(split)
    metric = predictions.known_metric(table)
    return {} if metric is None else metric.baselines(table)
