"""One optimiser step, one evaluation: what every task's module shares.

A task is one file beside this one with a `Data(TaskData)` and a `Module(TaskModule)`; it says how an example
is encoded, what the head is, the summed loss of a micro-batch, and how outputs become predictions.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from typing import Any, ClassVar

import lightning as L
import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from research.batching.pack import MicroBatch, StepItem, pack
from research.batching.plan import Indices, micro_batches
from research.common.errors import UserError
from research.config.schema import Config
from research.models import sharding
from research.models.backbone import Backbone
from research.models.parameters import flops_per_token
from research.tracking import predictions
from research.training.datamodule import TaskData
from research.training.optimizer import clip, evaluation_steps, learning_rate, make_optimizer, use_row_embedding
from research.training.progress import Progress


class TaskModule(L.LightningModule):
    """One optimiser step, one evaluation: the same for every task."""

    auto_class: ClassVar[Any]  # the `transformers` class that has the task's head
    monitor: ClassVar[str] = "accuracy"  # the usual score to choose the best checkpoint by

    def __init__(self, config: Config, backbone: Backbone, data: TaskData, total_steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config, self.backbone, self.data = config, backbone, data
        self.total_steps = total_steps
        self.budget_tokens = config.trainer.tokens_per_microbatch or default_budget_tokens()
        self.sharded = config.trainer.strategy == "fsdp"
        sparse = config.trainer.sparse_embedding is not False and config.trainer.precision != "fp16"
        self.rows = use_row_embedding(backbone.model, config.optim) if sparse and not self.sharded else None
        self.progress = Progress()
        self.last_loss = self.last_norm = torch.zeros(())  # sum over this rank's targets / global targets
        self._global_loss: Tensor | None = None
        self.predictions: dict[int, dict[str, Any]] = {}
        self.eval_loss = [0.0, 0.0]  # summed loss, targets
        self.leaving = False  # the evaluation under way, which will not count

    @abstractmethod
    def loss(self, micro: MicroBatch) -> tuple[Tensor, Any]:
        """The loss summed over the targets of a micro-batch, and the outputs it was made from."""

    @abstractmethod
    def decode(self, micro: MicroBatch, outputs: Any) -> dict[int, dict[str, Any]]:
        """Outputs -> {example: what `TaskData.table` needs of its prediction}."""

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Summed over the targets; label smoothing and class weights apply in training alone. Target -100: none."""
        smoothing = self.config.optim.label_smoothing if self.training else 0.0
        weights = self.data.class_weights if self.training else None
        weight = None if weights is None else torch.from_numpy(weights).to(logits)
        return F.cross_entropy(logits, targets, weight, reduction="sum", ignore_index=-100, label_smoothing=smoothing)

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return self.progress.step

    @property
    def monitored(self) -> str:
        """The score that chooses the best checkpoint of this run."""
        return self.config.trainer.monitor or self.monitor

    @property
    def scaler(self) -> Any:
        """Scales fp16's loss, so that small gradients do not vanish; None for the other precisions."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    @property
    def flops_per_token(self) -> float:
        """Useful operations of training on a token; none below the lowest trained weight but the forward pass."""
        return flops_per_token(self.backbone.model)

    def configure_model(self) -> None:
        if self.device_mesh is not None and not sharding.is_sharded(self.backbone.model):
            sharding.shard(self.backbone.model, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self, self.config.optim)

    @property
    def evaluations(self) -> list[int]:
        """The steps after which the module is evaluated; training runs from each to the next."""
        if "validation" not in self.data.stores:
            return [self.total_steps]
        every, per_epoch = self.config.trainer.evaluate_every_steps, self.data.plan.steps_per_epoch
        return evaluation_steps(every, per_epoch, self.total_steps)

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

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if isinstance(batch, StepItem):
            batch.micro = [micro.to(device) for micro in batch.micro]
            if batch.vocabulary is not None:
                batch.vocabulary = batch.vocabulary.to(device, non_blocking=True)
            return batch
        return batch.to(device)

    def training_step(self, item: StepItem, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        # Dropout belongs to (seed, step, rank): no generator state to save, none to lose.
        seed = np.random.SeedSequence([self.config.order_seed, item.step, self.global_rank])
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
        lr = learning_rate(self.config.optim, item.step, self.total_steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        leaf = self.rows.begin(item.vocabulary) if self.rows and item.vocabulary is not None else None
        self.last_loss = self._backward(item)
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        if leaf is not None:
            gradients.append(self._share(leaf))
        if self.scaler is not None:
            self.scaler.unscale_(optimizer.optimizer)
        self.last_norm = clip(gradients, self.config.optim.max_grad_norm)
        optimizer.step()
        if self.rows is not None:
            self.rows.step(lr)
        self._global_loss = None
        self.progress.step = item.step + 1
        self.progress.tokens += item.tokens
        self.progress.examples += item.examples

    def global_loss(self) -> Tensor:
        """The last step's loss over the global batch; all ranks must ask for it."""
        if self._global_loss is None:
            self._global_loss = self.last_loss.detach().clone()
            if self.trainer.world_size > 1:
                dist.all_reduce(self._global_loss)
        return self._global_loss

    def _backward(self, item: StepItem) -> Tensor:
        """Gradients of the summed loss over the global batch's targets. Returns this rank's share of that loss."""
        ranks, total = self.trainer.world_size, torch.zeros((), device=self.device)
        queue = list(zip(item.micro, item.rows, strict=True))
        if item.budget_tokens > self.budget_tokens and ranks == 1:  # planned before memory ran out
            queue = self._cut(item)
        while queue:
            micro, share = queue.pop(0)
            try:
                with self._exchange(last=not queue):
                    loss = self.loss(micro)[0] * (0.0 if micro.idle else 1.0 / (item.targets or 1.0))
                    self.manual_backward(loss * ranks)
                total += loss.detach()
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not self._halve(share, error):
                    raise
                queue, total = self._cut(item), torch.zeros((), device=self.device)
        return total

    def _exchange(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients stay on this rank until the last micro-batch."""
        if sharding.is_sharded(self.backbone.model):
            sharding.exchange(self.backbone.model, last)
        no_sync = getattr(self.trainer.strategy.model, "no_sync", None)
        return contextlib.nullcontext() if last or no_sync is None else no_sync()

    def _halve(self, share: Indices, error: Exception) -> bool:
        """After running out of memory: halve the token budget and forget the step so far. False: to no avail."""
        out_of_memory = isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
        if not out_of_memory or len(share) <= 1:
            return False
        store = self.data.stores["train"]
        used = int(store.tokens[share].sum())
        self.budget_tokens = max(1, min(self.budget_tokens, used) // 2)
        if self.trainer.world_size > 1:  # the others wait for this rank in the middle of the step
            raise UserError(
                f"Rank {self.global_rank} ran out of memory with a micro-batch of {used} tokens. Give the same command "
                f"with trainer.tokens_per_microbatch={self.budget_tokens}: it goes on from the last checkpoint, with "
                "the same result."
            )
        self.print(
            f"Out of memory with a micro-batch of {used} tokens: trying the step again with at most "
            f"{self.budget_tokens} (the result is the same; set trainer.tokens_per_microbatch={self.budget_tokens})."
        )
        for p in self.parameters():
            p.grad = None
        if self.rows is not None and self.rows.rows is not None:
            self.rows.rows.grad = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return True

    def _cut(self, item: StepItem) -> list[tuple[MicroBatch, Indices]]:
        """The micro-batches of a step under the present token budget, and their examples."""
        store, batch = self.data.stores["train"], np.concatenate(item.rows)
        parts = micro_batches(batch, store.tokens[batch], self.budget_tokens, not self.backbone.packed)
        return [(pack(store, part, self.backbone.packed).to(self.device), part) for part in parts]

    def _share(self, leaf: Tensor) -> Tensor:
        """The gradient of the embedding rows, averaged over the ranks as DDP does for the rest."""
        if leaf.grad is None:
            leaf.grad = torch.zeros_like(leaf)
        if self.trainer.world_size > 1:
            dist.all_reduce(leaf.grad)
            leaf.grad /= self.trainer.world_size
        return leaf.grad

    def on_validation_epoch_start(self) -> None:
        self.predictions, self.eval_loss = {}, [0.0, 0.0]

    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start

    def validation_step(self, micro: MicroBatch, batch_idx: int) -> None:
        if self.leaving:
            return
        loss, outputs = self.loss(micro)
        if micro.idle:
            return
        self.predictions.update(self.decode(micro, outputs))
        rows = np.unique(micro.examples)
        self.eval_loss[0] += float(loss)
        self.eval_loss[1] += float(self.data.stores[self.split].targets[rows].sum())

    def test_step(self, micro: MicroBatch, batch_idx: int) -> None:
        self.validation_step(micro, batch_idx)

    def predict_step(self, micro: MicroBatch, batch_idx: int) -> None:
        outputs = self.outputs(micro)
        if not micro.idle:
            self.predictions.update(self.decode(micro, outputs))

    @abstractmethod
    def outputs(self, micro: MicroBatch) -> Any:
        """The head's outputs for a micro-batch."""

    @property
    def split(self) -> str:
        return self.data.tested if self.trainer.testing else "validation"

    def scored(self) -> tuple[pa.Table, dict[str, float]]:
        """The predictions table of the split just evaluated, and its scores with the loss; the same on every rank."""
        gathered, loss = self.gathered_predictions()
        split, data = self.data.splits[self.split], self.data
        table = predictions.make_table(split, data.table(split, gathered), data.metric, data.score_settings())
        return table, {**predictions.score(table), "loss": loss}

    def gathered_predictions(self) -> tuple[dict[int, dict[str, Any]], float]:
        """The predictions of all ranks and the mean loss over all targets; the same on every rank."""
        parts: list[Any] = [(self.predictions, self.eval_loss)]
        if self.trainer.world_size > 1:
            parts = [None] * self.trainer.world_size
            dist.all_gather_object(parts, (self.predictions, self.eval_loss))
        merged = {row: prediction for part, _ in parts for row, prediction in part.items()}
        losses = np.array([loss for _, loss in parts], dtype=np.float64).sum(0)
        return merged, float(losses[0] / max(losses[1], 1e-9))


def default_budget_tokens() -> int:
    """Tokens of a micro-batch that keep the device busy within its memory."""
    return 16384 if torch.cuda.is_available() else 4096
