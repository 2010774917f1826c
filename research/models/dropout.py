"""Dropout at a fraction of its usual cost on a CPU, where drawing one random float per element dominates it.

One 64-bit draw of torch's generator serves four elements; p is exact to 1/65536.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def keep_mask(like: Tensor, p: float) -> Tensor:
    """int16 ones where an element is kept and zeros where it is dropped, of the shape of `like`."""
    n = like.numel()
    bits = torch.empty((n + 3) // 4, dtype=torch.int64, device=like.device).random_(-(2**63), None)
    draws = bits.view(torch.int16)[:n].view(like.shape)
    return torch.ge(draws, round(p * 65536) - 32768, out=draws)


def zero_dropped(x: Tensor, keep: Tensor) -> Tensor:
    """A copy of x that is zero where `keep` is, not rescaled."""
    if x.element_size() == 2:
        return (x.view(torch.int16) * keep).view(x.dtype)  # on the bits: integers multiply several times faster
    return x * keep


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        keep = keep_mask(x, p)
        ctx.save_for_backward(keep)
        ctx.scale = 1 / (1 - p)
        return zero_dropped(x, keep).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return zero_dropped(grad, keep).mul_(ctx.scale), None


class FastDropout(nn.Dropout):
    """`nn.Dropout` with the cheap mask."""

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and self.p):
            return input
        dropped: Tensor = _Dropout.apply(input, self.p)  # type: ignore[no-untyped-call]
        return dropped


def swap_dropout(model: nn.Module) -> None:
    """Put FastDropout in the place of every nn.Dropout of the model."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, FastDropout(child.p).train(child.training))
