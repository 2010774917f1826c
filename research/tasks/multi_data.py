"""The data of several tasks at once: each task's own, its examples after those of the task before.

What a task is, is asked of its own file; here its examples get their places in joint splits, stores and tables.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from research.batching.joint_store import JointStore
from research.batching.loaders import EvaluationBatches
from research.batching.mixture import MixedPlan
from research.batching.plan import Indices, evaluation_share, random_bits
from research.common.errors import UserError
from research.config import component
from research.config.load import from_dict
from research.config.schema import Config
from research.config.tree import to_dict
from research.data.source import Split
from research.data.splits import labels_of
from research.models.linear_head import HEADS
from research.tracking.predictions import make_table
from research.training.datamodule import Columns, TaskData


class Data(TaskData):
    fields = {}
    gold = texts = ()
    metric = "multi"
    class_column = None
    answers_alone = False
    not_alone = "does not label new text; the runs below its folder `tasks` do"
    learned_names = ("labels",)

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        self.parts: dict[str, TaskData] = {}
        for name, content in config.task.tasks.items():
            own = config_of(config, name, content)
            task = component.load("task", own.task.name)
            if getattr(task.Module, "auto_class", None) not in HEADS or task.Module.auto_classes:
                raise UserError(f"tasks: {name}: task '{own.task.name}' has no head of scores to share an encoder by.")
            self.parts[name] = task.Data(own, tokenizer)
        if not self.parts:
            raise UserError("task 'multi' has no tasks; name their experiments, as in tasks: [ner.yaml, sst2.yaml].")
        keys = config.task
        for named in (*keys.weights, *keys.train, *keys.memory):
            if named not in self.parts:
                raise UserError(f"task '{named}' is none of the tasks, which are {', '.join(self.parts)}.")

    def collect(self, splits: Sequence[Split]) -> list[str]:
        return [f"{name} {label}" for name, part in self.parts.items() for label in outputs_of(part)]

    @property
    def outputs(self) -> dict[str, slice]:
        """The outputs of the joint head that are each task's."""
        counts = [len(outputs_of(part)) for part in self.parts.values()]
        ends = np.cumsum(counts).tolist()
        return {name: slice(end - n, end) for name, end, n in zip(self.parts, ends, counts, strict=True)}

    def open(self, learned: Mapping[str, Any] | None = None, only: str | None = None) -> None:
        for name, part in self.parts.items():
            part.open(None if learned is None else learned["tasks"][name], only)
        first = next(iter(self.parts.values()))
        for split in first.splits:
            self.splits[split] = joint_split(split, {name: part.splits[split] for name, part in self.parts.items()})
            self.stores[split] = JointStore({name: part.stores[split] for name, part in self.parts.items()})
            for name, part in self.parts.items():
                if split in part.overview:
                    self.overview[f"{split} of {name}"] = part.overview[split]
        self.labels = self.collect([])

    def learned(self) -> dict[str, Any]:
        return {"labels": self.labels, "tasks": {name: part.learned() for name, part in self.parts.items()}}

    def recall(self, learned: Mapping[str, Any]) -> None:
        super().recall(learned)
        for name, part in self.parts.items():
            part.recall(learned["tasks"][name])

    def open_input(self, path: str, learned: Mapping[str, Any]) -> None:
        raise UserError(f"task '{self.config.task.name}' {self.not_alone}.")

    def use_validation_scores(self, validation: Mapping[str, float]) -> None:
        for name, part in self.parts.items():
            prefix = f"{name}."
            own = {score.removeprefix(prefix): x for score, x in validation.items() if score.startswith(prefix)}
            part.use_validation_scores(own)

    def encode(self, rows: Columns) -> Columns:
        raise NotImplementedError  # each task encodes its own

    @property
    def plan(self) -> MixedPlan:
        if not hasattr(self, "_plan"):
            config, keys = self.config, self.config.task
            epochs = max(1, int(np.ceil(config.optim.epochs)))
            rows = [self._trained_rows(name) for name in self.parts]
            self._plan = MixedPlan(rows, config.optim.batch_size, config.order_seed, keys.alpha, keys.alpha_end, epochs)
        return self._plan

    def _trained_rows(self, name: str) -> Indices:
        """The examples of the joint store that a task trains on."""
        keys, store, part = self.config.task, self.joint("train"), self.parts[name]
        first, count = store.first[name], len(part.stores["train"])
        if name in keys.memory:
            labels = labels_of(part.splits["train"], part.class_column is not None)
            task = list(self.parts).index(name)
            own = remembered(count, labels, keys.memory[name], self.config.seed, task)
        else:
            own = np.arange(count if name in keys.train or not keys.train else 0)
        rows: Indices = first + own
        return rows

    def joint(self, split: str) -> JointStore:
        store = self.stores[split]
        assert isinstance(store, JointStore)
        return store

    def bounds(self, split: str) -> dict[str, tuple[int, int]]:
        """The first example of each task in a split, and how many it has."""
        first = self.joint(split).first
        return {name: (first[name], len(part.stores[split])) for name, part in self.parts.items()}

    def shares(self, split: str, batch: Indices | None = None) -> dict[str, float]:
        """What the summed loss of each task is multiplied by, so that divided by all targets it counts by its weight.

        Of these examples, or of all of the split.
        """
        store, weights = self.joint(split), self.config.task.weights
        batch = np.arange(len(store)) if batch is None else batch
        targets, total = store.targets[batch], float(store.targets[batch].sum())
        shares = {}
        for name, (first, count) in self.bounds(split).items():
            own = float(targets[(batch >= first) & (batch < first + count)].sum())
            if own:
                shares[name] = weights.get(name, 1.0) * total / own
        return shares

    def evaluation_batches(self, split: str) -> EvaluationBatches:
        """As those of each task alone, so that its run gives the predictions that were scored."""
        layout, store = self.layout(), self.joint(split)
        ranks = range(layout.ranks)
        shares: list[list[Indices]] = [[] for _ in ranks]
        for name, (first, _) in self.bounds(split).items():
            tokens = self.parts[name].stores[split].stream_tokens
            for rank in ranks:
                own = evaluation_share(tokens, rank, layout.ranks, layout.budget_tokens, not layout.packed)
                shares[rank] += [first + rows for rows in own]
        least = max(1, *map(len, shares))  # as many for each rank: a forward may take all of them
        return EvaluationBatches(store, shares[layout.rank], layout.packed, least)

    def score_settings(self) -> dict[str, Any]:
        tasks = {}
        for name, part in self.parts.items():
            main = part.config.trainer.monitor or component.load("task", part.config.task.name).Module.monitor
            tasks[name] = {"scorer": part.metric_name, "main": main, **part.score_settings()}
        return {"tasks": tasks}

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        """The table of each task, its columns with the task's name in front and null in the rows of other tasks."""
        total, columns = len(split.rows), Columns()
        said: dict[str, list[str]] = {"gold": [], "prediction": []}
        for name, (first, count) in self.bounds(split.name).items():
            part = self.parts[name]
            own = {i: predictions[first + i] for i in range(count)}
            rows = part.splits[split.name]
            made = make_table(rows, part.table(rows, own), part.metric_name, {}).drop_columns(["id"])
            for column in made.column_names:
                values = made.column(column).combine_chunks()
                sides = [pa.nulls(size, values.type) for size in (first, total - first - count)]
                columns[f"{name} {column}"] = pa.concat_arrays([sides[0], values, sides[1]])
            for column, texts in said.items():
                texts += [json.dumps(value, default=str) for value in made.column(column).to_pylist()]
        return {**said, **columns}


def outputs_of(part: TaskData) -> Sequence[str]:
    """Names of the outputs of a task's head."""
    return part.head or ("LABEL_0", "LABEL_1")


def config_of(config: Config, name: str, content: Mapping[str, Any]) -> Config:
    """The experiment of one of the tasks, under the joint one's model, seed and precision."""
    values = to_dict(config)
    own = {
        "task": content["task"], "data": content["data"],
        "optim": {**values["optim"], **content["optim"]},
        "trainer": {**values["trainer"], **content["trainer"], "sparse_embedding": False},
    }  # fmt: skip
    kept = {key: values[key] for key in ("seed", "seed_init", "seed_order", "model", "run_dir")}
    return from_dict({**kept, **own}, f"tasks: {name}")


def joint_split(name: str, parts: Mapping[str, Split]) -> Split:
    """The rows of several tasks, each with its id and task."""
    ids = [f"{task}:{row}" for task, split in parts.items() for row in split.rows["id"]]
    tasks = [task for task, split in parts.items() for _ in range(len(split.rows))]
    digest = hashlib.sha256("\n".join(f"{task} {split.fingerprint}" for task, split in parts.items()).encode())
    rows = datasets.Dataset.from_dict({"id": ids, "task": tasks})
    return Split(name, rows, "; ".join(split.origin for split in parts.values()), False, digest.hexdigest())


def remembered(count: int, labels: Sequence[str] | None, per_class: int, seed: int, task: int) -> Indices:
    """`per_class` examples of each class, ascending, by (seed, task); of all together where there are no classes."""
    order = np.argsort(random_bits(seed, task, 0x3E3).random_raw(count), kind="stable")
    taken: dict[str, int] = {}
    kept = []
    for i in order.tolist():
        label = labels[i] if labels else ""
        if taken.setdefault(label, 0) < per_class:
            taken[label] += 1
            kept.append(i)
    return np.sort(np.array(kept, np.int64))
