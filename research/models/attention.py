"""Attention over packed rows: every token sees its own sequence and no other.

`transformers` calls `packed_attention` through its attention interface, so the models are the library's own: encoders,
decoders, and decoders that attend to an encoder. On a GPU it is variable-length flash attention. Elsewhere, and with a
position bias, the sequences are gathered into buckets of nearly equal length, each one batched matrix product.

Shapes: Tq and Tk tokens of the rows of queries and keys (T: one row), H heads, D width of a head, N sequences of a
bucket, Lq and Lk lengths of a bucket, S = sum of N * L over the buckets, the slots.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from research.batching.layout import AttentionPlan
from research.batching.read_tokens import Reading
from research.models.dropout import keep_mask, zero_dropped
from research.models.load import DECODER, ENCODER
from research.models.prefixed import prefixed

CROSS = "cross"  # a role beside ENCODER, both ways, and DECODER, causal: from a decoder to an encoder
CROSS_MODULES = {"encoder_attn", "EncDecAttention", "crossattention"}  # as the model classes name them
# Keyword arguments of a forward pass that ask nothing of the attention.
HARMLESS = {"cache_position", "deterministic", "output_attentions", "output_hidden_states", "position_ids",
            "return_dict", "use_cache"}  # fmt: skip


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type sums are made in: float32 for the half types."""
    return torch.promote_types(dtype, torch.float32)


class BucketAttention(torch.autograd.Function):
    """softmax(q k^T * scale + bias) v within each bucket, with dropout on the weights.

    The backward pass is written out: it needs one product less than the recorded one, keeps the weights in
    the compute type and draws the dropout mask at a third of the cost (`research.models.dropout`).
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        plan: AttentionPlan,
        biases: list[Tensor],
        p: float,
        scale: float,
        position_bias: Tensor | None,
    ) -> Tensor:
        """q: (Tq, H, D); k, v: (Tk, H, D); biases: one (N or 1, 1, Lq or 1, Lk) a bucket. Returns (Tq, H, D).

        position_bias: (1, H or 1, L, L'), added to the scores of each sequence's places; it gets a gradient.
        """
        (Tq, H, _), D = q.shape, v.shape[-1]
        q_slots, k_slots = plan.q.heads(H), plan.k.heads(H)
        q = q.reshape(Tq * H, -1).index_select(0, q_slots.gather)  # (Sq * H, D)
        k, v = (x.reshape(len(x) * H, -1).index_select(0, k_slots.gather) for x in (k, v))  # (Sk * H, D)
        out, weights = v.new_empty(len(q), D), []
        parts = (*_split(plan.q.shapes, H, q, out), *_split(plan.k.shapes, H, k, v))
        for bias, q_b, out_b, k_b, v_b in zip(biases, *parts, strict=True):
            Lq, Lk = q_b.shape[1], k_b.shape[1]
            if position_bias is not None:
                bias = bias + position_bias[:, :, :Lq, :Lk]
            scores = torch.bmm(q_b, k_b.transpose(1, 2)).view(-1, H, Lq, Lk)
            w = torch.add(bias, scores, alpha=scale).softmax(-1, dtype=wide(v.dtype)).to(v.dtype)
            w = w.view(-1, Lq, Lk)
            kept = zero_dropped(w, keep_mask(w, p)) if p else w
            torch.bmm(kept, v_b, out=out_b)
            weights += [w, kept]
        out.mul_(1 / (1 - p))
        ctx.save_for_backward(q, k, v, out, *weights)
        ctx.plan, ctx.p, ctx.scale = plan, p, scale
        ctx.position_bias = None if position_bias is None else (position_bias.shape, position_bias.dtype)
        return out.index_select(0, q_slots.scatter).view(Tq, H, D)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """dV = M^T g and dS = M * (g V^T) - W * (g . O): W the weights, M their kept part, g the gradient / (1 - p)."""
        q, k, v, out, *weights = ctx.saved_tensors
        Tq, H, D = grad.shape
        q_slots, k_slots = ctx.plan.q.heads(H), ctx.plan.k.heads(H)
        g = grad.reshape(Tq * H, D).index_select(0, q_slots.gather).masked_fill_(q_slots.padding, 0)
        g_dot_out = (g * out).sum(-1, keepdim=True, dtype=wide(g.dtype)).to(g.dtype)  # (Sq * H, 1)
        g.mul_(1 / (1 - ctx.p))
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        dbias = None
        if ctx.needs_input_grad[7]:
            shape, dtype = ctx.position_bias
            dbias = torch.zeros(shape, dtype=wide(dtype), device=g.device)
        parts = (
            *_split(ctx.plan.q.shapes, H, q, g, g_dot_out, dq),
            *_split(ctx.plan.k.shapes, H, k, v, dk, dv),
        )
        for w, kept, *bucket in zip(weights[::2], weights[1::2], *parts, strict=True):
            q_b, g_b, dot_b, dq_b, k_b, v_b, dk_b, dv_b = bucket
            torch.bmm(kept.transpose(1, 2), g_b, out=dv_b)
            ds = torch.bmm(g_b, v_b.transpose(1, 2)).mul_(kept).addcmul_(w, dot_b, value=-1)
            torch.bmm(ds, k_b, out=dq_b)
            torch.bmm(ds.transpose(1, 2), q_b, out=dk_b)
            if dbias is not None:
                Lq, Lk = ds.shape[1:]
                place = dbias[:, :, :Lq, :Lk]
                place += ds.view(-1, H, Lq, Lk).sum(0, keepdim=True, dtype=dbias.dtype).sum_to_size(place.shape)
        dq.mul_(ctx.scale)
        dk.mul_(ctx.scale)
        rows = (
            x.index_select(0, slots.scatter).view(-1, H, x.shape[-1])
            for x, slots in ((dq, q_slots), (dk, k_slots), (dv, k_slots))
        )
        return *rows, None, None, None, None, dbias if dbias is None else dbias.to(ctx.position_bias[1])


def _split(shapes: list[tuple[int, int]], H: int, *slots: Tensor) -> list[list[Tensor]]:
    """Each of these (S * H, D) tensors as a list of buckets, (N * H, L, D) each: views."""
    sizes = [N * H * L for N, L in shapes]
    return [
        [part.view(-1, L, part.shape[-1]) for part, (_, L) in zip(x.split(sizes), shapes, strict=True)] for x in slots
    ]


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, p: float, scale: float, window: int | None, causal: bool
) -> Tensor:
    """Variable-length flash attention of torch itself, with its dropout. q: (Tq, H, D); k, v: (Tk, H, D), on a GPU."""
    left = None if window is None else window - 1
    right = 0 if causal and left is not None else left
    out: Tensor = torch.ops.aten._flash_attention_forward(
        q,
        k,
        v,
        plan.q_offsets,
        plan.k_offsets,
        plan.q_longest,
        plan.k_longest,
        p,
        causal,
        False,
        scale=scale,
        window_size_left=left,
        window_size_right=right,
    )[0]
    return out


@dataclass
class Plans:
    """How the rows that a model is fed attend, for each role; handed down to its attention as `plans`."""

    by_role: dict[str, AttentionPlan]
    positions: dict[str, Tensor] = field(default_factory=dict)  # (T,) of each token in its sequence, by role
    calls: Counter[str] = field(default_factory=Counter)  # of the attention function, by role
    reading: Reading | None = None  # what the last layer is asked for; None: all tokens


def mark_cross_attention(model: nn.Module) -> None:
    """Mark the modules by which a decoder attends to an encoder: shapes do not tell, lengths can be equal by chance."""
    for name, module in model.named_modules():
        if CROSS_MODULES & set(name.split(".")):
            module.attends_across = True


def role_of(module: nn.Module, is_causal: bool | None = None) -> str:
    """The role of an attention module."""
    if getattr(module, "attends_across", False):
        return CROSS
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    return DECODER if causal else ENCODER


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    position_bias: Tensor | None = None,
    is_causal: bool | None = None,
    plans: Plans | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention function that `transformers` calls. query, key, value: (1, H, T, D); returns (1, T, H, D).

    Key and value may have fewer heads than the query. Raises RuntimeError for a model that does not hand `plans` down,
    and where its attention asks for what is not computed here (a cap on the scores, sinks): it cannot be packed.
    """
    if plans is None:
        raise RuntimeError("it does not hand keyword arguments down to its attention")
    unknown = [name for name, x in others.items() if x is not None and x is not False and name not in HARMLESS]
    if unknown:
        raise RuntimeError(f"its attention asks for {', '.join(sorted(unknown))}")
    role = role_of(module, is_causal)
    plan = plans.by_role.get(role)
    if plan is None:
        raise RuntimeError(f"it has {role} attention")
    plans.calls[role] += 1
    v = value[0].transpose(0, 1)  # (Tk, H, D)
    q, k = (x[0].transpose(0, 1).to(v.dtype) for x in (query, key))  # rotary embeddings leave float32 under autocast
    if len(q) != plan.q.T or len(k) != plan.k.T:
        raise RuntimeError(f"its attention is over {len(q)} and {len(k)} tokens, not {plan.q.T} and {plan.k.T}")
    if groups := q.shape[1] // k.shape[1] - 1:
        k, v = (x.repeat_interleave(groups + 1, dim=1) for x in (k, v))
    prefix = getattr(module, "trained_prefix", None)
    if prefix is not None and prefix.active:
        plan, k, v = prefixed(prefix, plan, k, v)
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    causal, window = role == DECODER, sliding_window
    half = q.dtype in (torch.bfloat16, torch.float16)
    if q.is_cuda and half and q.shape[-1] % 8 == 0 and q.shape[1:] == v.shape[1:] and position_bias is None:
        return flash_attention(q, k, v, plan, dropout, scale, window, causal)[None], None
    biases = plan.biases(q.dtype, window, causal)
    out: Tensor = BucketAttention.apply(q, k, v, plan, biases, dropout, scale, position_bias)  # type: ignore[no-untyped-call]
    return out[None], None


PACKED = "packed"  # its name in `transformers`
AttentionInterface.register(PACKED, packed_attention)
