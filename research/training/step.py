"""One optimiser step: seed, learning rate, gradients, clipping, update, and the hooks of methods and adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from research.batching.pack import StepItem
from research.methods.hooks import entered
from research.training.backward import backward
from research.training.optimizer import clip
from research.training.schedule import learning_rate

if TYPE_CHECKING:
    from research.training.module import TaskModule


def take_step(module: TaskModule, item: StepItem) -> tuple[Tensor, Tensor]:
    """Update the weights by a step of the plan. Returns this rank's share of the loss, and the norm of the gradient."""
    optimizer: Any = module.optimizers()
    # Dropout belongs to (seed, step, rank): no generator state to save, none to lose.
    seed = np.random.SeedSequence([module.config.order_seed, item.step, module.global_rank])
    torch.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
    lr = learning_rate(module.config.optim, item.step, module.total_steps)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]
    optimizer.zero_grad(set_to_none=True)
    rows, methods = module.rows, module.methods.values()
    leaf = rows.begin(item.vocabulary) if rows and item.vocabulary is not None else None
    module.adapter.before_step(module.backbone.model, item.step)
    with entered(method.at_step(module) for method in methods):
        loss = backward(module, item)
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if leaf is not None:
        gradients.append(averaged_gradient(leaf, module.trainer.world_size))
    if module.scaler is not None:
        module.scaler.unscale_(optimizer.optimizer)
    for method in methods:
        method.after_backward(module)
    module.adapter.after_backward(module.backbone.model)
    norm = clip(gradients, module.config.optim.max_grad_norm)
    optimizer.step()
    if rows is not None:
        rows.step(lr * module.rows_factor)
    for method in methods:
        method.after_step(module)
    module.adapter.after_step(module.backbone.model, item.step + 1, module.total_steps)
    module.progress.step = item.step + 1
    module.progress.tokens += item.tokens
    module.progress.examples += item.examples
    return loss, norm


def averaged_gradient(leaf: Tensor, ranks: int) -> Tensor:
    """The gradient of the embedding rows, averaged over the ranks as DDP does for the rest."""
    if leaf.grad is None:
        leaf.grad = torch.zeros_like(leaf)
    if ranks > 1:
        dist.all_reduce(leaf.grad)
        leaf.grad /= ranks
    return leaf.grad
