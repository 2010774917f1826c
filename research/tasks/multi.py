"""Several tasks at once, on one encoder: `tasks: [ner.yaml, sst2.yaml]`, each of them an experiment of its own.

Liu et al. 2019, Multi-Task Deep Neural Networks for Natural Language Understanding. The heads are rows of one linear
layer over the encoder's tokens: a task on sequences reads its rows at the first token, a task on tokens at each. A step
is a set of examples of all tasks (research.batching.mixture); a packed row may mix them, and the encoder is computed
once for it. The loss of a step is

    sum over tasks k of weight_k * (summed loss of k) / (targets of k in the step)

so that a task counts by its weight, however many targets its examples have. All that a task is, from encoding to
decoding, is asked of its own file. Evaluation scores each task and the mean of their main scores.

Shapes: T tokens, C outputs of all heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification

from research.batching.joint_store import Part, parts_of
from research.batching.pack import MicroBatch, StepItem
from research.batching.read_tokens import ALL
from research.config import component
from research.config.key import Rule, above, at_least, key
from research.config.schema import Config
from research.models.backbone import Backbone
from research.models.head import head_rows
from research.models.linear_head import read_at_first, read_at_tokens
from research.tasks.multi_data import Data
from research.tasks.multi_parts import write_part
from research.tasks.multi_recorded import Recorded, followed
from research.training.module import TaskModule

POSITIVE_WEIGHTS = Rule(lambda v: all(0 < weight < float("inf") for weight in v.values()), "must be above 0")


@dataclass
class Keys:
    tasks: dict[str, Any] = key({}, "what each task is; the list `tasks` at the top of an experiment fills it in")
    alpha: float = key(1.0, "a task of n examples is sampled by n ** alpha: 1 by size, 0 all alike", at_least(0))
    alpha_end: float | None = key(
        None, "alpha in the last epoch, to which it changes linearly; null: alpha", at_least(0)
    )
    weights: dict[str, float] = key({}, "task: weight of its loss; the others weigh 1", POSITIVE_WEIGHTS)
    train: list[str] = key([], "tasks that are trained, the others are only evaluated; empty: all")
    recorded: str | None = key(None, "file of earlier heads' scores, which are followed: learning without forgetting")
    follow: float = key(1.0, "weight of following them", at_least(0))
    temperature: float = key(2.0, "divides both scores there", above(0))
    parts: bool = key(True, "write a run of each trained task, of its best checkpoint, under `tasks/`", decides=False)
    memory: dict[str, int] = key({}, "task: train on so many examples of each of its classes, drawn by (seed, task)")


class View:
    """What a task's module sees of the shared model: the scores of its own head, for its own sequences."""

    def __init__(self, backbone: Backbone, auto_class: Any) -> None:
        self.model, self.family, self.packed = backbone.model, backbone.family, backbone.packed
        self.auto_class = auto_class
        self.logits = torch.zeros(0, 0)  # (T, outputs of the task)

    def token_logits(self, micro: MicroBatch, which: str = ALL) -> dict[str, Tensor]:
        return read_at_tokens(self.logits, self.auto_class)

    def sequence_logits(self, micro: MicroBatch) -> Tensor:
        return read_at_first(self.logits, micro)


Outputs = dict[str, tuple[Part, Any]]  # of each task: its part of the micro-batch, and what its module made of it


class Module(TaskModule):
    auto_class = AutoModelForTokenClassification
    monitor = "mean"
    data: Data

    def __init__(self, config: Config, backbone: Backbone, data: Data, total_steps: int) -> None:
        super().__init__(config, backbone, data, total_steps)
        self.parts = nn.ModuleDict()
        for name, part in data.parts.items():
            task = component.load("task", part.config.task.name)
            self.parts[name] = task.Module(part.config, View(backbone, task.Module.auto_class), part, total_steps)
        self.shares: dict[str, float] = {}
        self.recorded = Recorded(config.task.recorded) if config.task.recorded and total_steps else None
        self.logits = torch.zeros(0, 0)  # (T, C) of the last micro-batch

    def each(self, micro: MicroBatch) -> Iterator[tuple[str, Part]]:
        """The part of a micro-batch that each task has; its module sees the scores of its head for it."""
        self.logits = self.backbone.token_logits(micro)["logits"]  # (T, C)
        rows = self.data.outputs
        for name, part in parts_of(micro, rows):
            view: Any = self.parts[name].backbone
            view.logits = self.logits[part.places, rows[name]]
            yield name, part

    def outputs(self, micro: MicroBatch) -> Outputs:
        return {name: (part, self.part(name).outputs(part.micro)) for name, part in self.each(micro)}

    def loss(self, micro: MicroBatch) -> tuple[Tensor, Outputs]:
        total, outputs = torch.zeros((), device=self.device), Outputs()
        for name, part in self.each(micro):
            loss, made = self.part(name).loss(part.micro)
            total, outputs[name] = total + self.shares.get(name, 0.0) * loss, (part, made)
        if self.recorded is not None and self.training:
            keys = self.config.task
            total = total + followed(self, micro, self.recorded, keys.follow, keys.temperature)
        return total, outputs

    def part(self, name: str) -> TaskModule:
        return self.parts[name]  # type: ignore[return-value]

    def decode(self, micro: MicroBatch, outputs: Outputs) -> dict[int, dict[str, Any]]:
        return {
            part.first + row: prediction
            for name, (part, made) in outputs.items()
            for row, prediction in self.part(name).decode(part.micro, made).items()
        }

    def training_step(self, item: StepItem, batch_idx: int) -> None:
        self.shares = self.data.shares("train", self.data.plan.global_batch(item.step))
        heads = {name: p for name, p in head_rows(self.backbone.model).items() if p.requires_grad}
        before = {name: p.detach().clone() for name, p in heads.items()}
        super().training_step(item, batch_idx)
        with torch.no_grad():  # weight decay would shrink the heads that have nothing to learn from this step's tasks
            for rows in self.data.outputs.values():
                for name, p in heads.items():
                    if p.grad is not None and not p.grad[rows].any():
                        p[rows] = before[name][rows]

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.shares = self.data.shares(self.split)

    on_test_epoch_start = on_validation_epoch_start

    @property
    def monitored_parts(self) -> dict[str, str]:
        trained = (self.config.task.train or self.parts) if self.config.task.parts else ()
        return {name: f"{name}.{own['main']}" for name, own in self.mains().items() if name in trained}

    def write_part(self, attempt: Any, part: str, found: Mapping[str, dict[int, Any]]) -> None:
        write_part(self, attempt, part, found)

    def mains(self) -> dict[str, dict[str, Any]]:
        """Of each task, the settings of its metric, of which `main` is its main score."""
        settings: dict[str, dict[str, Any]] = self.data.score_settings()["tasks"]
        return settings

    def notes(self) -> dict[str, Any]:
        """Of each task: its own task, data and main score."""
        settings = self.mains()
        return {
            "tasks": {
                name: {
                    "task": component.canonical("task", part.config.task.name),
                    "train_sha256": part.splits["train"].fingerprint,
                    "main": settings[name]["main"],
                }
                for name, part in self.data.parts.items()
            }
        }
