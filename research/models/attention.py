"""Attention over a packed row: every token sees its own sequence and no other.

`transformers` calls `packed_attention` through its attention interface, so the encoders are the library's
own. On a GPU it is variable-length flash attention. Elsewhere the sequences are gathered into buckets of
nearly equal length, each one batched matrix product with the few padded keys masked.

Shapes: T tokens of the row, H heads, D width of a head, N sequences of a bucket, L length of a bucket,
S = sum of N * L over the buckets, the slots.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from research.batching.layout import Layout
from research.models.dropout import keep_mask, zero_dropped


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type sums are made in: float32 for the half types."""
    return torch.promote_types(dtype, torch.float32)


class BucketAttention(torch.autograd.Function):
    """softmax(q k^T * scale + bias) v within each bucket, with dropout on the weights.

    The backward pass is written out: it needs one product less than the recorded one, keeps the weights in
    the compute type and draws the dropout mask at a third of the cost (`research.model.dropout`).
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, layout: Layout, biases: list[Tensor], p: float, scale: float
    ) -> Tensor:
        """q, k, v: (T, H, D); biases: one (N, 1, 1 or L, L) a bucket. Returns (T, H, D)."""
        T, H, D = q.shape
        slots = layout.heads(H)
        q, k, v = (x.reshape(T * H, D).index_select(0, slots.gather) for x in (q, k, v))  # (S * H, D)
        out, weights = torch.empty_like(v), []
        sizes = [N * H * L for N, L in layout.buckets]
        parts = (x.split(sizes) for x in (q, k, v, out))
        for (N, L), bias, q_b, k_b, v_b, out_b in zip(layout.buckets, biases, *parts, strict=True):
            q_b, k_b, v_b, out_b = (x.view(N * H, L, D) for x in (q_b, k_b, v_b, out_b))
            scores = torch.bmm(q_b, k_b.transpose(1, 2)).view(N, H, L, L)
            w = torch.add(bias, scores, alpha=scale).softmax(-1, dtype=wide(v.dtype)).to(v.dtype)
            w = w.view(N * H, L, L)
            kept = zero_dropped(w, keep_mask(w, p)) if p else w
            torch.bmm(kept, v_b, out=out_b)
            weights += [w, kept]
        out.mul_(1 / (1 - p))
        ctx.save_for_backward(q, k, v, out, *weights)
        ctx.layout, ctx.p, ctx.scale = layout, p, scale
        return out.index_select(0, slots.scatter).view(T, H, D)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """dV = M^T g and dS = M * (g V^T) - W * (g . O): W the weights, M their kept part, g the gradient / (1 - p)."""
        q, k, v, out, *weights = ctx.saved_tensors
        T, H, D = grad.shape
        slots, buckets = ctx.layout.heads(H), ctx.layout.buckets
        g = grad.reshape(T * H, D).index_select(0, slots.gather).masked_fill_(slots.padding, 0)
        g_dot_out = (g * out).sum(-1, keepdim=True, dtype=wide(g.dtype)).to(g.dtype)  # (S * H, 1)
        g.mul_(1 / (1 - ctx.p))
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        parts = (x.split([N * H * L for N, L in buckets]) for x in (q, k, v, g, g_dot_out, dq, dk, dv))
        for (N, L), w, kept, *bucket in zip(buckets, weights[::2], weights[1::2], *parts, strict=True):
            q_b, k_b, v_b, g_b, dot_b, dq_b, dk_b, dv_b = (x.view(N * H, L, -1) for x in bucket)
            torch.bmm(kept.transpose(1, 2), g_b, out=dv_b)
            ds = torch.bmm(g_b, v_b.transpose(1, 2)).mul_(kept).addcmul_(w, dot_b, value=-1)
            torch.bmm(ds, k_b, out=dq_b)
            torch.bmm(ds.transpose(1, 2), q_b, out=dk_b)
        dq.mul_(ctx.scale)
        dk.mul_(ctx.scale)
        return *(x.index_select(0, slots.scatter).view(T, H, D) for x in (dq, dk, dv)), None, None, None, None


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, p: float, scale: float, window: int | None
) -> Tensor:
    """Variable-length flash attention of torch itself, with its dropout. q, k, v: (T, H, D) on a GPU."""
    left = right = None if window is None else window - 1
    out: Tensor = torch.ops.aten._flash_attention_forward(
        q,
        k,
        v,
        layout.offsets,
        layout.offsets,
        layout.longest,
        layout.longest,
        p,
        False,
        False,
        scale=scale,
        window_size_left=left,
        window_size_right=right,
    )[0]
    return out


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    layout: Layout | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """The attention function that `transformers` calls. query, key, value: (1, H, T, D); returns (1, T, H, D).

    Raises RuntimeError when the encoder did not hand the layout down: such an encoder cannot be packed.
    """
    if layout is None:
        raise RuntimeError("this encoder does not hand keyword arguments down to its attention")
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (T, H, D)
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and q.shape[-1] % 8 == 0:
        return flash_attention(q, k, v, layout, dropout, scale, sliding_window)[None], None
    return BucketAttention.apply(q, k, v, layout, layout.biases(q.dtype, sliding_window), dropout, scale)[None], None


PACKED = "packed"  # its name in `transformers`
AttentionInterface.register(PACKED, packed_attention)
