"""The training loss without label smoothing, from which perplexities follow that can be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.distributed as dist
from torch import Tensor

from research.batching.pack import MicroBatch

if TYPE_CHECKING:
    from research.training.module import TaskModule


def note_unsmoothed(module: TaskModule, micro: MicroBatch, nll: Tensor) -> None:
    """Take the negative log likelihoods of a micro-batch's targets as its part; a task's loss calls it in training."""
    if module.training and module.config.optim.label_smoothing and module.passes == 1:
        part = nll.detach().sum() * (0.0 if micro.idle else 1.0)
        module.unsmoothed = part if module.unsmoothed is None else module.unsmoothed + part


def unsmoothed_loss(module: TaskModule) -> float | None:
    """The last step's loss over the global batch without label smoothing; None where that is the loss itself, or the
    task does not note it. All ranks must ask for it."""
    if module.unsmoothed is None:
        return None
    found = module.unsmoothed.clone()
    if module.trainer.world_size > 1:
        dist.all_reduce(found)
    return float(found)
