"""Attention over a packed row: every token sees its own sequence and no other.

`transformers` calls `packed_attention` through its attention interface, so the encoders are the library's
own. On a GPU it is variable-length flash attention. Elsewhere the sequences are gathered into buckets of
nearly equal length, each one batched matrix product with the few padded keys masked.

Shapes: T tokens of the row, H heads, D width of a head, N sequences of a bucket, L length of a bucket,
S = sum of N * L over the buckets, the slots.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AttentionInterface

from research.model.dropout import keep_mask, zero_dropped

ROW_TOKENS = 16  # the row is filled up to a multiple: matrix products are prepared anew for each new shape
BUCKET_TOKENS = 16  # softmax over a multiple of the vector width is several times faster than over, say, 13


@dataclass
class HeadSlots:
    """The slots of a layout, a row for each head: bucket by bucket, (N, H, L)."""

    gather: Tensor  # (S * H,) row of the (T * H, D) matrix each slot reads; padding reads some row
    scatter: Tensor  # (T * H,) slot of each row
    padding: Tensor  # (S * H, 1) bool


@dataclass
class Layout:
    """Where the sequences of a packed row lie; the filler at its end is one more sequence, which nothing reads."""

    offsets: Tensor  # (sequences + 1,) int32: sequence i is row[offsets[i]:offsets[i + 1]]
    T: int
    filler: int
    longest: int
    buckets: list[tuple[int, int]]  # (N, L) of each bucket
    gather: Tensor  # (S,) token of each slot; T where the slot is padding
    by_heads: dict[int, HeadSlots] = field(default_factory=dict)
    by_window: dict[tuple[torch.dtype, int | None], list[Tensor]] = field(default_factory=dict)

    def to(self, device: torch.device) -> Layout:
        """The same layout with its tensors on `device`."""
        offsets, gather = (x.to(device, non_blocking=True) for x in (self.offsets, self.gather))
        return Layout(offsets, self.T, self.filler, self.longest, self.buckets, gather)

    def fill(self, tokens: Tensor) -> Tensor:
        """(T - filler,) -> (1, T), the first token repeated at the end."""
        return torch.cat([tokens, tokens[:1].expand(self.filler)])[None]

    def heads(self, H: int) -> HeadSlots:
        """Slots for H heads, made once per layout."""
        if H not in self.by_heads:
            device, T = self.gather.device, self.T
            head = torch.arange(H, device=device)[:, None]  # (H, 1)
            parts = self.gather.split([N * L for N, L in self.buckets])
            tokens = [part.view(N, 1, L) for part, (N, L) in zip(parts, self.buckets, strict=True)]
            padding = torch.cat([(t == T).expand(-1, H, -1).reshape(-1) for t in tokens])
            gather = torch.cat([(t.clamp(max=T - 1) * H + head).view(-1) for t in tokens])
            scatter = torch.empty(T * H, dtype=torch.int64, device=device)
            scatter[gather[~padding]] = (~padding).nonzero().squeeze(1)
            self.by_heads[H] = HeadSlots(gather, scatter, padding[:, None])
        return self.by_heads[H]

    def biases(self, dtype: torch.dtype, window: int | None) -> list[Tensor]:
        """0 where a token may look, minus infinity at padding and outside a window: (N, 1, 1 or L, L) a bucket."""
        if (dtype, window) not in self.by_window:
            parts = self.gather.split([N * L for N, L in self.buckets])
            self.by_window[dtype, window] = [
                _bias((part == self.T).view(N, 1, 1, L), window).to(dtype)
                for part, (N, L) in zip(parts, self.buckets, strict=True)
            ]
        return self.by_window[dtype, window]


def _bias(padding: Tensor, window: int | None) -> Tensor:
    hidden, L = padding, padding.shape[-1]
    if window is not None and window < L:
        position = torch.arange(L, device=padding.device)
        distance = (position[:, None] - position).abs()
        # A padded query may look anywhere, or its empty softmax would be NaN.
        hidden = padding | ((distance >= window) & ~padding.transpose(2, 3))
    return torch.zeros(hidden.shape, device=padding.device).masked_fill_(hidden, -torch.inf)


def make_layout(lengths: NDArray[np.int64]) -> Layout:
    """Plan the attention of sequences of these lengths, which lie end to end in this order."""
    filler = int(-lengths.sum() % ROW_TOKENS)
    if filler:
        lengths = np.append(lengths, filler)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rounded = -(-lengths // BUCKET_TOKENS) * BUCKET_TOKENS
    slots, buckets = [], []
    for length in dict.fromkeys(rounded.tolist()):
        members = np.flatnonzero(rounded == length)
        inside = np.arange(length)
        real = inside < lengths[members, None]
        slots.append(np.where(real, offsets[members, None] + inside, offsets[-1]).ravel())
        buckets.append((len(members), length))
    return Layout(
        offsets=torch.from_numpy(offsets.astype(np.int32)),
        T=int(offsets[-1]),
        filler=filler,
        longest=int(lengths.max(initial=0)),
        buckets=buckets,
        gather=torch.from_numpy(np.concatenate(slots)),
    )


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


AttentionInterface.register("packed", packed_attention)
