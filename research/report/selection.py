"""Which systems a figure or an analysis shows where there are more than it has room for."""

from __future__ import annotations

import numpy as np

from research.report.groups import Group, Table


def leading(table: Table, data_set: str, most: int) -> list[Group]:
    """The systems with finished runs on a data set, in the table's order; the best by validation where too many."""
    groups = [group for group in table.groups if group.data_set == data_set and group.runs]
    if len(groups) <= most:
        return groups
    best = sorted(groups, key=validation_mean, reverse=True)[:most]
    return [group for group in groups if group in best]


def best(table: Table, data_set: str) -> Group | None:
    """The system with the best mean validation score on a data set: the one that tuning would have chosen."""
    return max(leading(table, data_set, len(table.groups)), key=validation_mean, default=None)


def validation_mean(group: Group) -> float:
    """Mean validation score over the runs; test where a run was never validated."""
    split = "validation" if all(run.scores("validation") for run in group.runs) else "test"
    scores = [run.scores(split).get(group.metric, np.nan) for run in group.runs]
    return float(np.mean(scores)) if np.isfinite(scores).all() else -np.inf


def said_of(shown: int, table: Table, data_set: str) -> str:
    """A sentence for captions where systems are left out, else nothing."""
    there = len(leading(table, data_set, len(table.groups)))
    return f" The {shown} best of {there} systems by validation score." if shown < there else ""
