"""Scores of several tasks at once: those of each task by its own metric, and the mean of their main scores.

The mean is over scores between 0 and 1: a main score of another range is mapped to it, one of which less is better
turned round. `settings["tasks"]` hold the settings of each task's metric, its name `scorer`, and its score `main`.

Legend: N examples, K counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from research.common.errors import UserError
from research.metrics import metric_of
from research.metrics.base import BaseMetric, Blocks, Formula
from research.metrics.baselines import Baselines
from research.metrics.examples import Floats
from research.metrics.score import Score
from research.metrics.slicing import Part

Places = NDArray[np.intp]
MEAN = Score("mean", "mean of the tasks")


class Metric(BaseMetric):
    """`ner.f1` is the F1 of task `ner`, `ner.f1/PER` that of a class of it; `mean` is over the tasks."""

    scores: tuple[Score, ...] = (MEAN,)
    texts = lengths = ()

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        of_tasks = (
            replace(score, name=f"{task}.{score.name}", label=f"{score.label} of {task}", is_proportion=False)
            for task, part in self.metrics.items()
            for score in part.scores
        )
        self.scores = (MEAN, *of_tasks)
        for task, score in self.mains.items():
            if not (math.isfinite(score.low) and math.isfinite(score.high)):
                raise UserError(f"the {score.label} of {task} has no range, so that no mean can be made of it.")

    @cached_property
    def metrics(self) -> dict[str, BaseMetric]:
        """The metric of each task."""
        return {task: metric_of(own) for task, own in self.settings.get("tasks", {}).items()}

    @property
    def mains(self) -> dict[str, Score]:
        """The main score of each task."""
        tasks = self.settings.get("tasks", {})
        return {task: part.score_named(tasks[task]["main"]) for task, part in self.metrics.items()}

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("task",)

    @property
    def signature(self) -> str:
        return "multi|" + "; ".join(f"{task}: {part.signature}" for task, part in self.metrics.items())

    @property
    def sentence(self) -> str:
        each = "; ".join(f"{task}: {part.sentence}" for task, part in self.metrics.items())
        return f"the mean of the tasks' main scores ({each})"

    def widths(self) -> dict[str, int]:
        return {f"{task} {block}": n for task, part in self.metrics.items() for block, n in part.widths().items()}

    def part_tables(self, table: pa.Table) -> Iterator[tuple[str, BaseMetric, Places, pa.Table]]:
        """Of each task that has rows: its name, metric, the places of its rows, and its own table of them."""
        tasks = table.column("task")
        for task, part in self.metrics.items():
            mask = pc.equal(tasks, task)
            places = np.flatnonzero(mask.to_numpy(zero_copy_only=False))
            prefix = f"{task} "
            names = [name for name in table.column_names if name.startswith(prefix)]
            own = table.select(["id", *names]).filter(mask).rename_columns(["id", *(n[len(prefix) :] for n in names)])
            if len(places):
                yield task, part, places, own

    def counts(self, table: pa.Table) -> dict[str, Floats]:
        """The counts of each task's metric, zero in the rows of other tasks."""
        blocks = {block: np.zeros((table.num_rows, width)) for block, width in self.widths().items()}
        for task, part, places, own in self.part_tables(table):
            for block, values in part.counts(own).items():
                if (name := f"{task} {block}") not in blocks:
                    blocks[name] = np.zeros((table.num_rows, values.shape[1]))
                blocks[name][places] = values
        return blocks

    def formula(self, name: str) -> Formula | None:
        if name == MEAN.name:
            return self._mean()
        task, _, score = name.partition(".")
        own = self.metrics[task].formula(score) if task in self.metrics else None
        return own and Formula(tuple(f"{task} {block}" for block in own.blocks), own.of)

    def _mean(self) -> Formula | None:
        blocks, ends, each = [], [0], list[Callable[[Floats], Floats]]()
        for task, score in self.mains.items():
            own = self.metrics[task].formula(score.name)
            if own is None:
                return None
            widths = self.metrics[task].widths()
            blocks += [f"{task} {block}" for block in own.blocks]
            ends.append(ends[-1] + sum(widths[block] for block in own.blocks))
            each.append(own.of)
        scores = list(self.mains.values())

        def mean(sums: Floats) -> Floats:
            found = [of(sums[..., a:b]) for of, a, b in zip(each, ends[:-1], ends[1:], strict=True)]
            total: Floats = sum((normalised(s, x) for s, x in zip(scores, found, strict=True)), np.zeros(()))
            return total / len(each)

        return Formula(tuple(blocks), mean)

    def reported(self, sums: Blocks) -> list[str]:
        names = [MEAN.name] if self._mean() else []
        for task, part in self.metrics.items():
            prefix = f"{task} "
            own = {block[len(prefix) :]: x for block, x in sums.items() if block.startswith(prefix)}
            names += [f"{task}.{name}" for name in part.reported(own)]
        return names

    def beside(self, table: pa.Table) -> dict[str, float]:
        found: dict[str, float] = {}
        for task, part, _, own in self.part_tables(table):
            found |= {f"{task}.{name}": value for name, value in part.beside(own).items()}
        if not self._mean():
            mains = {task: found[f"{task}.{score.name}"] for task, score in self.mains.items()}
            found["mean"] = float(np.mean([normalised(self.mains[task], np.array(x)) for task, x in mains.items()]))
        return found

    def baselines(self, table: pa.Table, train: pa.Table | None = None) -> Baselines:
        found: Baselines = {}
        for task, part, _, own in self.part_tables(table):
            for baseline, scores in part.baselines(own).items():
                found.setdefault(baseline, {}).update({f"{task}.{name}": x for name, x in scores.items()})
        return found

    def example_scores(self, table: pa.Table) -> Floats:
        found = np.zeros(table.num_rows)
        for _, part, places, own in self.part_tables(table):
            found[places] = part.example_scores(own)
        return found

    def parts(self, tables: Sequence[pa.Table], train: pa.Table | None = None) -> Iterator[Part]:
        """Those of each task, on its own examples and by its own score."""
        runs = [{task: own for task, _, _, own in self.part_tables(table)} for table in tables]
        seen = {} if train is None else {task: own for task, _, _, own in self.part_tables(train)}
        for task in runs[0]:
            for part in self.metrics[task].parts([run[task] for run in runs], seen.get(task)):
                yield replace(part, by=f"{task}: {part.by}", score_name=f"{task}.{part.score_name}")

    def text(self, table: pa.Table) -> list[str]:
        found = [""] * table.num_rows
        for task, part, places, own in self.part_tables(table):
            for place, text in zip(places.tolist(), part.text(own), strict=True):
                found[place] = f"{task}: {text}"
        return found


def normalised(score: Score, value: Floats) -> Floats:
    """A score mapped from its range to 0 to 1, where 1 is best."""
    share = (value - score.low) / (score.high - score.low)
    return 1 - share if score.smaller_is_better else share
