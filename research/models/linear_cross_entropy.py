"""Cross entropy of a linear layer over a large vocabulary, a few rows of scores at a time.

The scores of all targets, their softmax and its gradient would be the largest tensors of a step: 12 to 14 bytes for
each target and token of the vocabulary. Here they exist for one chunk of targets, whose gradients are made at once;
what is kept is the gradient of the layer. Sums are made in float32.

Legend: K targets, V vocabulary, W width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_SCORES = 1 << 24  # scores of a chunk: 64 MiB in float32
LARGE_SCORES = 50_000_000  # scores from which chunks save more than they cost


def linear_cross_entropy(
    x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, smoothing: float = 0.0, rows: int | None = None
) -> tuple[Tensor, Tensor]:
    """The loss summed over the targets, with label smoothing, and the negative log likelihood of each, (K,) float32.

    x: (K, W), weight: (V, W), bias: (V,), targets: (K,); the likelihoods carry no gradient. Equal to F.cross_entropy of
    the scores in float32. `rows`: targets of a chunk.
    """
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    rows = rows or max(64, CHUNK_SCORES // len(weight))
    with torch.autocast(x.device.type, enabled=False):
        found: tuple[Tensor, Tensor] = _Chunked.apply(x, weight, bias, targets, smoothing, rows, dtype)  # type: ignore[no-untyped-call]
    return found


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        smoothing: float,
        rows: int,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        w, V = weight.to(dtype), len(weight)
        losses, nll = [x.new_zeros((), dtype=torch.float32)], [x.new_zeros(0, dtype=torch.float32)]
        dx = torch.empty_like(x) if wants_x else None
        dw = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        db = torch.zeros_like(bias, dtype=torch.float32) if wants_bias and bias is not None else None
        for first in range(0, len(x), rows):
            part, wanted = x[first : first + rows].to(dtype), targets[first : first + rows, None]
            scores = (part @ w.T).float()  # (rows, V)
            if bias is not None:
                scores += bias.float()
            total = scores.logsumexp(-1, keepdim=True)
            own = (total - scores.gather(1, wanted)).squeeze(1)
            nll.append(own)
            loss = own.sum() * (1 - smoothing)
            if smoothing:
                loss = loss + smoothing * (total.squeeze(1) - scores.mean(-1)).sum()
            losses.append(loss)
            if not (wants_x or wants_weight or wants_bias):
                continue
            g = scores.sub_(total).exp_()  # the softmax, then the gradient of the scores
            if smoothing:
                g -= smoothing / V
            g.scatter_add_(1, wanted, torch.full_like(own, smoothing - 1)[:, None])
            if db is not None:
                db += g.sum(0)
            g = g.to(dtype)
            if dx is not None:
                dx[first : first + rows] = g @ w
            if dw is not None:
                dw += g.T @ part
        ctx.save_for_backward(dx, dw, db)
        ctx.dtypes = weight.dtype, None if bias is None else bias.dtype
        likelihoods = torch.cat(nll)
        ctx.mark_non_differentiable(likelihoods)
        return torch.stack(losses).sum(), likelihoods

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        dx, dw, db = ctx.saved_tensors
        of_weight, of_bias = ctx.dtypes
        return (
            None if dx is None else dx * grad.to(dx.dtype),
            None if dw is None else (dw * grad).to(of_weight),
            None if db is None else (db * grad).to(of_bias),
            *[None] * 4,
        )


def plain_cross_entropy(scores: Tensor, targets: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """The same from scores that are there, (K, V) in float32."""
    nll = F.cross_entropy(scores, targets, reduction="none")
    if not smoothing:
        return nll.sum(), nll.detach()
    return F.cross_entropy(scores, targets, reduction="sum", label_smoothing=smoothing), nll.detach()
