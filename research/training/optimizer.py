"""The optimiser of a step: AdamW without decay on biases and norms, a schedule that is a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from research.common import compat
from research.models.embedding import RowEmbedding
from research.models.sharding import local

if TYPE_CHECKING:
    from research.config.schema import OptimConfig


def total_steps(optim: OptimConfig, steps_per_epoch: int) -> int:
    """Optimiser steps of the whole run."""
    return optim.max_steps or max(1, math.ceil(optim.epochs * steps_per_epoch))


def warmup_steps(optim: OptimConfig, total: int) -> int:
    """Steps over which the learning rate rises."""
    return int(optim.warmup_ratio * total) if optim.warmup_steps is None else optim.warmup_steps


def evaluation_steps(every: int | None, steps_per_epoch: int, total: int) -> list[int]:
    """The steps after which a run is evaluated: `every` so many, or after each epoch, and at its end."""
    every = every or steps_per_epoch
    return [*range(every, total, every), total]


def learning_rate(optim: OptimConfig, step: int, total: int) -> float:
    """The rate of optimiser step `step` (from 0): linear warmup, then the schedule to zero at `total`.

    As `transformers.get_scheduler` defines linear, cosine and constant_with_warmup.
    """
    warmup = warmup_steps(optim, total)
    if step < warmup:
        return optim.lr * step / warmup
    progress = (step - warmup) / max(1, total - warmup)
    if optim.schedule == "linear":
        return optim.lr * max(0.0, 1.0 - progress)
    if optim.schedule == "cosine":
        return optim.lr * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
    return optim.lr


def make_optimizer(
    module: nn.Module, optim: OptimConfig, factor: Callable[[str], float] = lambda name: 1.0
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; biases and the parameters of norms (one axis) do not decay.

    `factor` of a parameter's name is its learning rate in that of the schedule.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    factors = {name: factor(name) for name in trained}
    groups = [
        {"params": found, "weight_decay": decay, "factor": value}
        for value in dict.fromkeys(factors.values())
        for axes, decay in ((True, optim.weight_decay), (False, 0.0))
        if (found := [p for name, p in trained.items() if factors[name] == value and (p.ndim > 1) is axes])
    ]
    return torch.optim.AdamW(groups, lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps, fused=True)


def use_row_embedding(model: nn.Module, optim: OptimConfig) -> RowEmbedding | None:
    """Swap the word embedding for one that updates only the rows a step uses; None for a shared or frozen table."""
    table = model.get_input_embeddings()  # type: ignore[operator]
    if type(table) is not nn.Embedding or table.max_norm is not None or not table.weight.requires_grad:
        return None
    owners = [name for name, p in model.named_parameters(remove_duplicate=False) if p is table.weight]
    if len(owners) != 1:
        return None
    rows = RowEmbedding(table, optim.beta1, optim.beta2, optim.eps, optim.weight_decay)
    model.set_input_embeddings(rows)  # type: ignore[operator]
    return rows


@torch.no_grad()
def clip(gradients: Sequence[Tensor], max_norm: float | None) -> Tensor:
    """Scale the gradients to a global norm of at most `max_norm`; returns the norm before."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(compat.foreach_norm(gradients)))
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if max_norm is None:
        return norm
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    if scale.is_cuda or scale < 1:  # on a CPU, looking is free and a pass over the gradients is not
        compat.foreach_scale([local(gradient) for gradient in gradients], scale)
    return norm
