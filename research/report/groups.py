"""Systems, data sets and seeds: a group is the runs of one system on one data set, a grid is all groups of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from research.common.errors import UserError
from research.config.tree import SOME_OF
from research.metrics.score import Score
from research.report.records import Record, score_of
from research.report.settings import canonical, distinct_texts, system_name

MOST_RUNS = 10  # of a system whose predictions are read: more would change little


@dataclass(frozen=True)
class RunGroup:
    """The runs of one system on one data set."""

    settings: dict[str, Any]  # config key -> value: what names the system
    task: str
    data_set: str
    metric: str
    runs: list[Record]  # finished, by fold and seed
    others: list[Record]  # unfinished, pruned and failed ones
    missing: list[int] = field(default_factory=list)  # seeds that other groups of the table have
    texts: dict[str, str] = field(default_factory=dict)  # the settings as they are shown, different where they differ

    @property
    def system(self) -> str:
        """What figures and sentences call it: `lr 3e-5, dropout 0.1`."""
        return system_name(self.texts)

    def has(self, key: str) -> bool:
        """Whether a key concerns it: an adapter has no keys of another. Of a method, to be without it is said."""
        return key in (self.runs or self.others)[0].settings or key.partition(".")[0] in SOME_OF

    @property
    def paths(self) -> tuple[Path, ...]:
        """The folders of its finished runs."""
        return tuple(run.path for run in self.runs)

    @cached_property
    def score(self) -> Score:
        """What its metric says of the score: its name in a paper, range and direction."""
        return score_of(self.runs or self.others, self.metric)

    @property
    def split(self) -> str:
        """The split whose scores are reported: `validation` where the runs name no test data."""
        return (self.runs or self.others)[0].reported_split

    @property
    def folds(self) -> list[int]:
        """The folds that its finished runs were tested on; none where it was not cross-validated."""
        return sorted({run.fold for run in self.runs if run.fold is not None})

    @property
    def samples(self) -> list[int]:
        """The seeds of the few-shot samples that its finished runs were trained on."""
        return sorted({run.sample for run in self.runs if run.sample is not None})

    @property
    def repeats(self) -> str:
        """Over what its scores vary: seeds, or folds or few-shot samples, each the mean over its seeds."""
        return "folds" if self.folds else "samples" if len(self.samples) > 1 else "seeds"

    @property
    def blocks(self) -> list[int]:
        """For each run what it shares with others of its system beside the settings: its few-shot sample."""
        return [i if run.sample is None or len(self.samples) < 2 else run.sample for i, run in enumerate(self.runs)]

    def repeated(self, split: str, metric: str | None = None) -> np.ndarray:
        """One score per run; of folds or few-shot samples one for each, the mean over its seeds."""
        scores = self.scores(split, metric)
        part = [run.fold if self.folds else block for run, block in zip(self.runs, self.blocks, strict=True)]
        return np.array([scores[[p == each for p in part]].mean() for each in dict.fromkeys(part)])

    def mean_examples(self, split: str) -> float:
        """The mean number of examples of a split over its runs. Raises UserError where a run recorded none."""
        counts = [fingerprint[1] for run in self.runs if (fingerprint := run.fingerprint(split)) is not None]
        if len(counts) < len(self.runs):
            raise UserError(f"A run of {self.system} does not say how many {split} examples it had.")
        return float(np.mean(counts))

    def scores(self, split: str, metric: str | None = None) -> np.ndarray:
        """One score per run. Raises UserError naming the run that lacks the metric, and what it has."""
        metric = metric or self.metric
        for run in self.runs:
            if metric not in run.scores(split):
                held = ", ".join(name for name in run.scores(split) if "/" not in name)
                raise UserError(
                    f"The run {run.path} has no {split} score '{metric}'; "
                    f"{f'it has {held}' if held else f'it was not scored on {split} data'}."
                )
        return np.array([run.scores(split)[metric] for run in self.runs])


@dataclass(frozen=True)
class Grid:
    """Groups of all systems (rows) and data sets (columns), and what their runs share."""

    groups: list[RunGroup]
    by: list[str]  # config keys whose values name the systems
    constant: dict[str, Any]  # the same in all runs
    by_data_set: dict[str, dict[str, Any]]  # the same in all runs on a data set, and different between data sets

    @property
    def systems(self) -> list[dict[str, Any]]:
        """The settings of the rows, each once."""
        return list({canonical(group.settings): group.settings for group in self.groups}.values())

    @property
    def data_sets(self) -> list[str]:
        return list(dict.fromkeys(group.data_set for group in self.groups))

    def texts(self, settings: Mapping[str, Any]) -> dict[str, str]:
        """The settings of a row as they are shown."""
        return next(group.texts for group in self.groups if group.settings == settings)

    def find(self, settings: Mapping[str, Any], data_set: str) -> RunGroup | None:
        return next((g for g in self.groups if g.settings == settings and g.data_set == data_set), None)


def with_distinct_texts(groups: Sequence[RunGroup]) -> list[RunGroup]:
    """The groups, their settings written so that systems that differ have different names."""
    keys = dict.fromkeys(key for group in groups for key in group.settings)
    texts = {key: distinct_texts(g.settings[key] for g in groups if key in g.settings) for key in keys}
    return [
        replace(g, texts={key: texts[key][canonical(value)] if g.has(key) else "" for key, value in g.settings.items()})
        for g in groups
    ]


def leading_groups(grid: Grid, data_set: str, most: int) -> list[RunGroup]:
    """The systems with finished runs on a data set, in the table's order; the best by validation where too many."""
    groups = [group for group in grid.groups if group.data_set == data_set and group.runs]
    if len(groups) <= most:
        return groups
    kept = {id(group) for group in sorted(groups, key=validation_mean, reverse=True)[:most]}
    return [group for group in groups if id(group) in kept]


def best_group(grid: Grid, data_set: str) -> RunGroup | None:
    """The system with the best mean validation score on a data set: the one that tuning would have chosen."""
    return max(leading_groups(grid, data_set, len(grid.groups)), key=validation_mean, default=None)


def validation_mean(group: RunGroup) -> float:
    """Mean validation score over the runs, negative where less is better; test where a run was never validated."""
    split = "validation" if all(run.scores("validation") for run in group.runs) else "test"
    sign = -1.0 if group.score.smaller_is_better else 1.0
    scores = [sign * run.scores(split).get(group.metric, np.nan) for run in group.runs]
    return float(np.mean(scores)) if np.isfinite(scores).all() else -np.inf


def left_out_note(shown: int, grid: Grid, data_set: str) -> str:
    """A sentence for captions where systems are left out, else nothing."""
    there = len(leading_groups(grid, data_set, len(grid.groups)))
    return f" The {shown} best of {there} systems by validation score." if shown < there else ""


def runs_with_predictions(group: RunGroup) -> list[Record]:
    """The runs of a group whose predictions can be read, at most MOST_RUNS; of folds those of the first."""
    first = group.folds[0] if group.folds else None
    return [run for run in group.runs if group.split in run.splits and run.fold == first][:MOST_RUNS]
