"""What every task shares: its data from files to steps, and its optimiser step, evaluation and predictions.

A task is one file beside this one with a `Data(TaskData)` and a `Module(TaskModule)`; it says how an example
is encoded, what the head is, the summed loss of a micro-batch, and how outputs become predictions.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import lightning as L
import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from research.config import Config, DataConfig
from research.data.loaders import EvaluationBatches, StepLoader
from research.data.pack import MicroBatch, Planner, StepItem, pack
from research.data.plan import Indices, StepPlan, evaluation_share, micro_batches
from research.data.source import Split, open_split
from research.data.store import Store
from research.errors import UserError
from research.model.encoder import Encoder
from research.model.optim import clip, learning_rate, make_optimizer, use_row_embedding

Columns = dict[str, list[Any]]


class TaskData(L.LightningDataModule):
    """The splits of an experiment, opened and encoded once, and cut into steps."""

    fields: ClassVar[dict[str, str]]  # what the task reads -> the usual column of the data
    optional: ClassVar[tuple[str, ...]] = ()  # fields the data may lack
    gold: ClassVar[tuple[str, ...]] = ("label",)  # fields unlabelled text lacks
    texts: ClassVar[tuple[str, ...]] = ("text",)  # fields that hold text
    text_lists: ClassVar[tuple[str, ...]] = ()  # fields that hold lists of text
    token_columns: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids")
    window_columns: ClassVar[tuple[str, ...]] = ()
    scorer: ClassVar[str]  # module of research.metrics that scores the predictions
    learned_names: ClassVar[tuple[str, ...]] = ("labels",)  # attributes that `collect` learns

    allow_zero_length_dataloader_with_multiple_devices = True

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__()
        self.config, self.tokenizer = config, tokenizer
        self.splits: dict[str, Split] = {}
        self.stores: dict[str, Store] = {}
        self.labels: list[str] = []
        self.tested = "test"  # the split that testing runs over
        self.class_weights: NDArray[np.float64] | None = None

    @abstractmethod
    def collect(self, splits: Sequence[Split]) -> list[str]:
        """The labels, declared or collected over all splits."""

    @abstractmethod
    def encode(self, rows: Columns) -> Columns:
        """Rows of a split -> columns of the store (see `research.data.store`)."""

    @abstractmethod
    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        """Columns `gold`, `prediction` and what the task adds, one row per example, for the predictions file."""

    @property
    def head(self) -> Sequence[str]:
        """Names of the head's outputs; none where the head has a fixed size."""
        return self.labels

    def score_settings(self) -> dict[str, Any]:
        """What the scorer needs beside the rows; stands in the predictions file."""
        return {"labels": self.labels}

    def settle(self, validation: Mapping[str, float]) -> None:
        """Take what the best validation scores decide for all other data, such as a threshold."""

    def learned(self) -> dict[str, Any]:
        """What all splits together showed. A finished run keeps it: one split alone may show less."""
        return {name: getattr(self, name) for name in self.learned_names}

    def recall(self, learned: Mapping[str, Any]) -> None:
        """Take over what a finished run had `learned`."""
        for name in self.learned_names:
            setattr(self, name, learned[name])

    def open(self, learned: Mapping[str, Any] | None = None) -> None:
        """Open and encode every split the experiment names."""
        data = self.config.data
        limits = {"train": data.max_train_examples}
        for name in ("train", "validation", "test"):
            if value := getattr(data, name):
                self.splits[name] = self._open(data, name, value, limits.get(name, data.max_eval_examples))
        if learned is None:
            self.labels = self.collect(list(self.splits.values()))
        else:
            self.recall(learned)
        for name, split in self.splits.items():
            self.stores[name] = self.make_store(split)
        self.class_weights = self._class_weights()
        if self.class_weights is not None:
            self.stores["train"].weigh("label", self.class_weights)

    def _class_weights(self) -> NDArray[np.float64] | None:
        """A weight for each label in the training loss, or None: all alike. Raises UserError for an unknown label."""
        optim = self.config.optim
        if not self.labels or not (optim.class_weights or optim.balance_classes) or "train" not in self.stores:
            return None
        unknown = sorted(set(optim.class_weights) - set(self.labels))
        if unknown:
            raise UserError(
                f"optim.class_weights names {', '.join(unknown)}, but the labels are {', '.join(self.labels)}."
            )
        if optim.class_weights:
            return np.array([optim.class_weights.get(label, 1.0) for label in self.labels])
        counts = self.stores["train"].count("label", len(self.labels))
        return counts.sum() / (len(counts) * np.maximum(counts, 1))

    def open_input(self, path: str, learned: Mapping[str, Any]) -> None:
        """Open new text, with or without gold answers, as the split `input`."""
        self.recall(learned)
        self.splits["input"] = self._open(DataConfig(columns=self.config.data.columns), "input", path, None)
        self.stores["input"] = self.make_store(self.splits["input"])

    def _open(self, data: DataConfig, name: str, value: str, limit: int | None) -> Split:
        optional = (*self.optional, *(self.gold if name == "input" else ()))
        fields = {**self.fields, **({"id": "id"} if "id" in data.columns else {})}
        for field in data.columns:
            if field not in (*self.fields, "id"):
                raise UserError(
                    f"data.columns: task '{self.config.task}' has no field '{field}'; "
                    f"its fields are {', '.join(self.fields)} and id."
                )
        split = open_split(
            name=name,
            value=value,
            hub_name=data.name,
            hub_config=data.config,
            hub_revision=data.revision,
            fields={field: data.columns.get(field, usual) for field, usual in fields.items()},
            optional=optional,
            limit=limit,
        )
        for field in {*self.texts, *self.text_lists} & set(split.rows.column_names):
            refuse_other_than_text(split, field, field in self.text_lists)
        return split

    def make_store(self, split: Split) -> Store:
        """Encode a split, once per (data, tokenizer, settings, code): `datasets` keeps the result."""
        key = [
            split.fingerprint, len(split.rows), self.labels, getattr(self, "scheme", None),
            self.tokenizer.backend_tokenizer.to_str(),
            self.config.data.max_length, self.config.data.stride, self.config.data.columns,
            inspect.getsource(inspect.getmodule(type(self))),  # type: ignore[arg-type]
        ]  # fmt: skip
        fingerprint = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        try:
            encoded = split.rows.map(
                self.encode,
                batched=True,
                remove_columns=split.rows.column_names,
                new_fingerprint=fingerprint[:32],
                desc=f"Tokenising {split.name}",
            )
        except UserError as error:  # `encode` knows the row, not the file
            raise UserError(f"{split.origin}, {error}") from None
        except OSError as error:
            raise UserError(
                f"The tokenised {split.name} data cannot be kept in the data cache ({error.strerror or error}); "
                "free space there or set HF_DATASETS_CACHE to a folder with space."
            ) from None
        columns = [name for name in self.token_columns if name in encoded.column_names]
        return Store(encoded, columns, self.window_columns)

    def prepare_trainer(self, module: TaskModule) -> None:
        """Learn from the module where training stands and how micro-batches are cut."""
        self.module = module

    @property
    def plan(self) -> StepPlan:
        return StepPlan(len(self.stores["train"]), self.config.optim.batch_size, self.config.order_seed)

    def train_dataloader(self) -> Any:
        """The steps from where training stands to the next evaluation."""
        module = self.module
        planner = Planner(
            self.stores["train"], self.plan, module.global_rank, module.trainer.world_size,
            module.budget_tokens, module.encoder.packed, module.rows is not None,
        )  # fmt: skip
        return StepLoader(planner, module.segment(), self.config.data.num_workers)

    def evaluation_batches(self, split: str) -> EvaluationBatches:
        """This rank's micro-batches of a split."""
        module, store = self.module, self.stores[split]
        rank, ranks = module.global_rank, module.trainer.world_size
        rows = evaluation_share(store.tokens, rank, ranks, module.budget_tokens, not module.encoder.packed)
        return EvaluationBatches(store, rows, module.encoder.packed)

    def val_dataloader(self) -> Any:
        return self.evaluation_batches("validation") if "validation" in self.stores else []

    def test_dataloader(self) -> Any:
        return self.evaluation_batches(self.tested)

    def predict_dataloader(self) -> Any:
        return self.evaluation_batches("input")


def refuse_other_than_text(split: Split, field: str, listed: bool) -> None:
    """Raise UserError unless a column holds text, or `listed` lists of it."""
    kind = split.column(field).type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    inner = kind.value_type if is_list else kind
    is_text = pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_null(inner)
    if not is_text or is_list is not listed:
        wanted = 'lists of text, as in ["New", "York"]' if listed else "text, in quotes"
        raise UserError(f"{split.origin}: '{field}' holds {kind}; write {wanted}.")


class TaskModule(L.LightningModule):
    """One optimiser step, one evaluation: the same for every task."""

    auto_class: ClassVar[Any]  # the `transformers` class that has the task's head
    monitor: ClassVar[str] = "accuracy"  # the score that chooses the best checkpoint

    def __init__(self, config: Config, encoder: Encoder, data: TaskData, total_steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config, self.encoder, self.data = config, encoder, data
        self.total_steps = total_steps
        self.budget_tokens = config.trainer.tokens_per_microbatch or default_budget_tokens()
        sparse = config.trainer.sparse_embedding is not False and config.trainer.precision != "fp16"
        self.rows = use_row_embedding(encoder.model, config.optim) if sparse else None
        self.step = 0  # optimiser steps done
        self.tokens_done = self.examples_done = 0
        self.last_loss = self.last_norm = torch.zeros(())  # sum over this rank's targets / global targets
        self.predictions: dict[int, dict[str, Any]] = {}
        self.eval_loss = [0.0, 0.0]  # summed loss, targets

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

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self, self.config.optim)

    def segment(self) -> range:
        """The steps up to the next evaluation."""
        every = self.config.trainer.evaluate_every_steps or self.data.plan.steps_per_epoch
        if "validation" not in self.data.stores:
            return range(self.step, self.total_steps)
        return range(self.step, min(self.total_steps, (self.step // every + 1) * every))

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
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            scaler.unscale_(optimizer.optimizer)
        self.last_norm = clip(gradients, self.config.optim.max_grad_norm)
        optimizer.step()
        if self.rows is not None:
            self.rows.step(lr)
        self.step = item.step + 1
        self.tokens_done += item.tokens
        self.examples_done += item.examples

    def _backward(self, item: StepItem) -> Tensor:
        """Gradients of the summed loss over the global batch's targets. Returns this rank's share of that loss."""
        ranks, total = self.trainer.world_size, torch.zeros((), device=self.device)
        queue, rows = list(item.micro), list(item.rows)
        if item.budget_tokens > self.budget_tokens and ranks == 1:  # planned before memory ran out
            queue, rows = self._cut(item)
        while queue:
            micro = queue.pop(0)
            share = rows.pop(0)
            last = not queue
            try:
                with contextlib.nullcontext() if last else self._no_sync():
                    loss = self.loss(micro)[0] / (item.targets or 1.0)
                    self.manual_backward(loss * ranks)
                total += loss.detach()
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if ranks > 1 or not self._halve(share, error):
                    raise
                (queue, rows), total = self._cut(item), torch.zeros((), device=self.device)
        if not item.micro:  # DDP: a rank without examples still takes part in the gradient exchange
            self.manual_backward(torch.stack([(p * 0).sum() for p in self.parameters() if p.requires_grad]).sum())
        return total

    def _no_sync(self) -> Any:
        no_sync = getattr(self.trainer.strategy.model, "no_sync", None)
        return no_sync() if no_sync else contextlib.nullcontext()

    def _halve(self, share: Indices, error: Exception) -> bool:
        """After running out of memory: halve the token budget and forget the step so far. False: to no avail."""
        out_of_memory = isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
        if not out_of_memory or len(share) == 1:
            return False
        store = self.data.stores["train"]
        used = int(store.tokens[share].sum())
        self.budget_tokens = max(1, min(self.budget_tokens, used) // 2)
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

    def _cut(self, item: StepItem) -> tuple[list[MicroBatch], list[Indices]]:
        """The micro-batches of a step under the present token budget, and their examples."""
        store, batch = self.data.stores["train"], np.concatenate(item.rows)
        rows = micro_batches(batch, store.tokens[batch], self.budget_tokens, not self.encoder.packed)
        return [pack(store, part, self.encoder.packed).to(self.device) for part in rows], rows

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
        loss, outputs = self.loss(micro)
        self.predictions.update(self.decode(micro, outputs))
        rows = np.unique(micro.examples)
        self.eval_loss[0] += float(loss)
        self.eval_loss[1] += float(self.data.stores[self.split].targets[rows].sum())

    def test_step(self, micro: MicroBatch, batch_idx: int) -> None:
        self.validation_step(micro, batch_idx)

    def predict_step(self, micro: MicroBatch, batch_idx: int) -> None:
        self.predictions.update(self.decode(micro, self.outputs(micro)))

    @abstractmethod
    def outputs(self, micro: MicroBatch) -> Any:
        """The head's outputs for a micro-batch."""

    @property
    def split(self) -> str:
        return self.data.tested if self.trainer.testing else "validation"

    def gathered_predictions(self) -> tuple[dict[int, dict[str, Any]], float]:
        """The predictions of all ranks and the mean loss over all targets; the same on every rank."""
        parts: list[Any] = [(self.predictions, self.eval_loss)]
        if self.trainer.world_size > 1:
            parts = [None] * self.trainer.world_size
            dist.all_gather_object(parts, (self.predictions, self.eval_loss))
        merged = {row: prediction for predictions, _ in parts for row, prediction in predictions.items()}
        losses = np.array([loss for _, loss in parts], dtype=np.float64).sum(0)
        return merged, float(losses[0] / max(losses[1], 1e-9))


def default_budget_tokens() -> int:
    """Tokens of a micro-batch that keep the device busy within its memory."""
    return 16384 if torch.cuda.is_available() else 4096
