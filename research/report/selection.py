"""Which systems a figure or an analysis shows where there are more than it has room for."""

from __future__ import annotations

import numpy as np

from research.report.groups import Grid, Group
from research.report.records import Record

MOST_RUNS = 10  # of a system whose predictions are read: more would change little


def leading(grid: Grid, data_set: str, most: int) -> list[Group]:
    """The systems with finished runs on a data set, in the table's order; the best by validation where too many."""
    groups = [group for group in grid.groups if group.data_set == data_set and group.runs]
    if len(groups) <= most:
        return groups
    kept = {id(group) for group in sorted(groups, key=validation_mean, reverse=True)[:most]}
    return [group for group in groups if id(group) in kept]


def best(grid: Grid, data_set: str) -> Group | None:
    """The system with the best mean validation score on a data set: the one that tuning would have chosen."""
    return max(leading(grid, data_set, len(grid.groups)), key=validation_mean, default=None)


def validation_mean(group: Group) -> float:
    """Mean validation score over the runs; test where a run was never validated."""
    split = "validation" if all(run.scores("validation") for run in group.runs) else "test"
    scores = [run.scores(split).get(group.metric, np.nan) for run in group.runs]
    return float(np.mean(scores)) if np.isfinite(scores).all() else -np.inf


def said_of(shown: int, grid: Grid, data_set: str) -> str:
    """A sentence for captions where systems are left out, else nothing."""
    there = len(leading(grid, data_set, len(grid.groups)))
    return f" The {shown} best of {there} systems by validation score." if shown < there else ""


def predicted(group: Group) -> list[Record]:
    """The runs of a group whose predictions can be read, at most MOST_RUNS."""
    return [run for run in group.runs if group.split in run.splits][:MOST_RUNS]
