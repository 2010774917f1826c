"""What every task's module shares: its methods and adapter, the steps and evaluations of a run, the scores.

A task's `Module(TaskModule)` says the summed loss of a micro-batch and how outputs become predictions.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from research.adapters.hooks import AdapterHooks
from research.batching.pack import MicroBatch, StepItem, default_budget_tokens
from research.batching.plan import Indices, Layout
from research.batching.store import NO_TARGET
from research.common.errors import UserError
from research.config.schema import Config
from research.methods.hooks import Loss, MethodHooks, chained, entered, methods_of
from research.models import sharding
from research.models.backbone import Backbone
from research.models.load import ENCODER
from research.models.parameters import flops_per_token
from research.tracking import predictions
from research.training.bases import Callback, LightningModule
from research.training.datamodule import TaskData
from research.training.evaluated import Evaluated
from research.training.optimizer import make_optimizer, use_row_embedding
from research.training.plain_trainer import PlainTraining
from research.training.progress import Progress
from research.training.schedule import evaluation_steps
from research.training.step import take_step
from research.training.suitability import refuse_unsuitable


class TaskModule(LightningModule):
    """One optimiser step, one evaluation: the same for every task."""

    auto_class: ClassVar[Any]  # the `transformers` class that has the task's head, for a task on encoders
    auto_classes: ClassVar[Mapping[str, Any]] = {}  # by family, for a task on decoders or encoder-decoders
    draws_tokens: ClassVar[bool] = False  # does the model read tokens that are not in the store, such as masks?
    exports_programs: ClassVar[bool] = True  # are its outputs those of the model's own forward pass?
    monitor: ClassVar[str] = "accuracy"  # the usual score to choose the best checkpoint by
    targets_are_tokens: ClassVar[bool] = False  # is a target one of its window's tokens, as the start of an answer is?

    def __init__(self, config: Config, backbone: Backbone, data: TaskData, total_steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config, self.backbone, self.data = config, backbone, data
        self.total_steps = total_steps
        self.methods = methods_of(config)
        self.copies = math.prod(method.copies for method in self.methods.values())
        self.budget_tokens = max(1, (config.trainer.tokens_per_microbatch or default_budget_tokens()) // self.copies)
        self.sharded = config.trainer.strategy == "fsdp"
        dense = self.draws_tokens or any(method.needs_dense_embedding for method in self.methods.values())
        sparse = config.trainer.sparse_embedding is not False and config.trainer.precision != "fp16" and not dense
        self.rows = use_row_embedding(backbone.model, config.optim) if sparse and not self.sharded else None
        self.adapter = AdapterHooks(None)
        self.adapter_note: str | None = None
        self.training_loss: Loss = self.loss  # with the methods in it
        self.rows_factor = 1.0  # the learning rate of the embedding's rows, in that of the schedule
        self.progress = Progress()
        self.last_loss = self.last_norm = torch.zeros(())  # sum over this rank's targets / global targets
        self.unsmoothed: Tensor | None = None  # the same without label smoothing, if the task notes it
        self._global_loss: Tensor | None = None
        self.evaluated = Evaluated()
        self.leaving = False  # the evaluation under way, which will not count
        self.plain = False  # trained by a `lightning.Trainer` alone, without a run folder

    @classmethod
    def heads(cls) -> Mapping[str, Any]:
        """The `transformers` class that has the task's head, for each family of models the task is for."""
        return cls.auto_classes or {ENCODER: cls.auto_class}

    @abstractmethod
    def loss(self, micro: MicroBatch) -> tuple[Tensor, Any]:
        """The loss summed over the targets of a micro-batch, and the outputs it was made from."""

    @abstractmethod
    def decode(self, micro: MicroBatch, outputs: Any) -> dict[int, dict[str, Any]]:
        """Outputs -> {example: what `TaskData.table` needs of its prediction}."""

    def target_logits(self, micro: MicroBatch, outputs: Any) -> list[Tensor]:
        """Logits of each target, (targets, classes) and minus infinity where it has no such class; one tensor for each
        of its distributions. For methods that compare distributions."""
        raise UserError(f"task '{self.config.task.name}' has no target_logits, which a method asks for.")

    def target_examples(self, micro: MicroBatch) -> Indices:
        """The example of each row of `target_logits`, those of one example together and in the order of the examples.
        For methods that keep logits beyond a step."""
        raise UserError(f"task '{self.config.task.name}' does not say whose its logits are, which they are kept by.")

    def embed(self, micro: MicroBatch) -> dict[str, tuple[Tensor, Indices]]:
        """For a loss that needs the whole step: vectors by kind, each (n, ...), and the n examples they are of."""
        raise NotImplementedError

    def step_loss(self, vectors: dict[str, Tensor], examples: dict[str, Indices]) -> Tensor:
        """The loss summed over the targets of the whole step, from the vectors that `embed` makes of all its
        micro-batches on all ranks; sorted by example. A task that defines it trains by it; `loss` is for evaluation."""
        raise NotImplementedError

    @property
    def whole_step_method(self) -> MethodHooks | None:
        """The method whose loss is of whole steps, if there is one."""
        return next((method for method in self.methods.values() if method.needs_whole_step), None)

    @classmethod
    def defines(cls, name: str) -> bool:
        """Does the task have its own of what it need not have, such as `target_logits`?"""
        return getattr(cls, name) is not getattr(TaskModule, name)

    @property
    def defines_step_loss(self) -> bool:
        return self.defines("step_loss")

    @property
    def needs_whole_step(self) -> bool:
        return self.defines_step_loss or self.whole_step_method is not None

    def prepare(self, adapter: AdapterHooks, note: str | None) -> None:
        """Once, on the complete module: `adapter` is that of its model already. Raises UserError where a method does
        not suit the task or the model, and for weights outside of the model."""
        self.adapter, self.adapter_note = adapter, note
        refuse_unsuitable(self)
        for method in self.methods.values():
            method.on_model(self)
        if self.rows is not None:
            table = self.rows.weight
            self.rows_factor = next(self.rate_factor(name) for name, p in self.named_parameters() if p is table)
        self.training_loss = chained(list(self.methods.values()), self, self.loss)

    def evaluating(self) -> ExitStack:
        """Surrounds evaluation and export: the weights are those that are scored."""
        return entered(method.at_evaluation(self) for method in self.methods.values())

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Summed over the targets; label smoothing and class weights apply in training alone."""
        smoothing = self.config.optim.label_smoothing if self.training else 0.0
        weights = self.data.class_weights if self.training else None
        weight = None if weights is None else torch.from_numpy(weights).to(logits, non_blocking=True)
        return F.cross_entropy(
            logits, targets, weight, reduction="sum", ignore_index=NO_TARGET, label_smoothing=smoothing
        )

    @property
    def compares_logits(self) -> bool:
        """Does a method read the logits that the loss was made from?"""
        return any(type(method).loss is not MethodHooks.loss for method in self.methods.values())

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return self.progress.step

    @property
    def monitored(self) -> str:
        """The score that chooses the best checkpoint of this run."""
        return self.config.trainer.monitor or self.monitor

    @property
    def monitored_parts(self) -> Mapping[str, str]:
        """Parts of the run that become runs of their own, each with the score that chooses its checkpoint."""
        return {}

    def write_part(self, attempt: Any, part: str, found: Mapping[str, dict[int, Any]]) -> None:
        """Write the run of a part, with the weights as they are; `found`: their predictions by split."""

    @property
    def scaler(self) -> Any:
        """Scales fp16's loss, so that small gradients do not vanish; None for the other precisions."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    @property
    def flops_per_token(self) -> float:
        """Useful operations of training on a token; none below the lowest trained weight but the forward pass."""
        return flops_per_token(self.backbone.model) * self.passes

    @property
    def passes(self) -> float:
        """Forward and backward passes of a step, in plain ones."""
        return math.prod(method.passes for method in self.methods.values())

    def rate_factor(self, name: str) -> float:
        """The learning rate of a weight of the module, in that of the schedule."""
        name = name.removeprefix("backbone.model.")
        factors = (method.learning_rate(self, name) for method in self.methods.values())
        return self.adapter.learning_rate(name) * math.prod(factors)

    def configure_callbacks(self) -> list[Callback]:
        return [PlainTraining()] if self.plain else []

    def configure_model(self) -> None:
        if self.device_mesh is not None and not sharding.is_sharded(self.backbone.model):
            sharding.shard(self.backbone.model, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self, self.config.optim, self.rate_factor)

    @property
    def evaluations(self) -> list[int]:
        """The steps after which the module is evaluated; training runs from each to the next."""
        if "validation" not in self.data.stores:
            return [self.total_steps]
        return evaluation_steps(self.config.trainer, self.data.plan.steps_per_epoch, self.total_steps)

    @property
    def ends_segment(self) -> bool:
        """Is the step just done followed by an evaluation, or the last?"""
        return self.step in self.evaluations

    @property
    def is_logged(self) -> bool:
        """Is the step just done one that is logged?"""
        return self.step % self.config.trainer.log_every_steps == 0 or self.ends_segment

    def segment(self) -> range:
        """The steps up to the next evaluation."""
        return range(self.step, min((end for end in self.evaluations if end > self.step), default=self.total_steps))

    def layout(self) -> Layout:
        """How the next steps, or an evaluation, lie on the ranks and in micro-batches."""
        return Layout(
            rank=self.global_rank,
            ranks=self.trainer.world_size,
            budget_tokens=self.budget_tokens,
            packed=self.backbone.packed,
            sharded=self.sharded,
            sparse_rows=self.rows is not None,
            steps=self.segment() if "train" in self.data.stores else range(0),
        )

    def training_step(self, item: StepItem, batch_idx: int) -> None:
        self.last_loss, self.last_norm = take_step(self, item)
        self._global_loss = None

    def global_loss(self) -> Tensor:
        """The last step's loss over the global batch; all ranks must ask for it."""
        if self._global_loss is None:
            self._global_loss = self.last_loss.detach().clone()
            if self.trainer.world_size > 1:
                dist.all_reduce(self._global_loss)
        return self._global_loss

    def on_validation_epoch_start(self) -> None:
        self.evaluated = Evaluated()
        self.entered = self.evaluating()

    def on_validation_epoch_end(self) -> None:
        self.entered.close()

    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_predict_epoch_end = on_validation_epoch_end

    def validation_step(self, micro: MicroBatch, batch_idx: int) -> None:
        if self.leaving:
            return
        loss, outputs = self.loss(micro)
        if micro.idle:
            return
        self.evaluated.predictions.update(self.decode(micro, outputs))
        rows = np.unique(micro.examples)
        self.evaluated.loss += float(loss)
        self.evaluated.targets += float(self.data.stores[self.split].targets[rows].sum())

    def test_step(self, micro: MicroBatch, batch_idx: int) -> None:
        self.validation_step(micro, batch_idx)

    def predict_step(self, micro: MicroBatch, batch_idx: int) -> None:
        outputs = self.outputs(micro)
        if not micro.idle:
            self.evaluated.predictions.update(self.decode(micro, outputs))

    def notes(self) -> dict[str, Any]:
        """What `result.json` says of the task beside its scores; values for JSON."""
        return {}

    @abstractmethod
    def outputs(self, micro: MicroBatch) -> Any:
        """The head's outputs for a micro-batch."""

    @property
    def split(self) -> str:
        return self.data.tested if self.trainer.testing else self.data.validated

    def scored(self) -> tuple[pa.Table, dict[str, float]]:
        """The predictions table of the split just evaluated, and its scores with the loss; the same on every rank."""
        gathered, loss = self.gathered_predictions()
        split, data = self.data.splits[self.split], self.data
        table = predictions.make_table(split, data.table(split, gathered), data.metric_name, data.score_settings())
        return table, {**predictions.score(table, own_files=True), "loss": loss}

    def gathered_predictions(self) -> tuple[dict[int, dict[str, Any]], float]:
        """The predictions of all ranks and the mean loss over all targets; the same on every rank."""
        return self.evaluated.gathered(self.trainer.world_size)
