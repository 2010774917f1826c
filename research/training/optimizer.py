"""The optimiser of a step: AdamW without decay on biases and norms; gradient clipping."""

from __future__ import annotations

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
    model.set_submodule(owners[0].removesuffix(".weight"), rows)
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
