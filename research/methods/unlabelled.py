"""What methods on unlabelled texts share: the texts as their files have them, and what a step holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from research.batching.pack import pack
from research.common.errors import UserError
from research.methods.example_classes import refuse_other_than_one_class
from research.methods.hooks import Trained

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch
    from research.batching.plan import Indices


@dataclass(frozen=True)
class StepSizes:
    """What the global batch of a step holds; `targets` counts labelled texts, by their class weights."""

    labelled: int
    unlabelled: int
    targets: float


def sizes_of_step(module: Trained) -> StepSizes:
    batch, labelled = module.data.plan.global_batch(module.step), len(module.data.stores["train"])
    count = int((batch < labelled).sum())
    targets = float(module.data.training_store(module.step).targets[batch].sum())
    return StepSizes(count, len(batch) - count, targets)


def refuse_without_unlabelled(method: str, module: Trained) -> None:
    """Raise UserError without unlabelled texts."""
    if module.data.unlabelled is None:
        raise UserError(f"methods.{method} needs texts without labels: set data.unlabelled to a file of them.")


def refuse_other_tasks(method: str, module: Trained) -> None:
    """Raise UserError unless each text, unlabelled ones too, is read in one window and has one class."""
    refuse_other_than_one_class(method, module, windows=False)
    both = module.data.unlabelled.as_written if module.data.unlabelled is not None else module.data.stores["train"]
    if any(bool((stream.windows.lengths() > 1).any()) for stream in both.streams.values()):
        raise UserError(f"methods.{method} reads a text in one window; set data.long to truncate or head_tail.")


def as_written(module: Trained, micro: MicroBatch) -> MicroBatch:
    """The same examples without augmentation."""
    if module.data.epochs is None:
        return micro
    return packed(module, micro.examples, micro)


def packed(module: Trained, examples: Indices, like: MicroBatch) -> MicroBatch:
    """A micro-batch of these training examples, labelled or not, as their files have them."""
    data = module.data
    store = data.stores["train"] if data.unlabelled is None else data.unlabelled.as_written
    return pack(store, examples, module.backbone.packed).to(like.first.positions.device)


@torch.no_grad()
def logits_of(module: Trained, micro: MicroBatch) -> Tensor:
    """(E, C), without a gradient."""
    [logits] = module.target_logits(micro, module.outputs(micro))
    return logits
