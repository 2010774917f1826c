"""Where the sequences of a packed row lie, and the buckets in which a CPU attends to them.

Shapes: T tokens of a row, H heads, D width of a head, N sequences of a bucket, L length of a bucket,
S = sum of N * L over the buckets, the slots.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROW_TOKENS = 16  # the row is filled up to a multiple: matrix products are prepared again for each new shape
BUCKET_TOKENS = 16  # softmax over a multiple of the vector width is several times faster than over, say, 13

Lengths = NDArray[np.int64]


@dataclass
class HeadSlots:
    """The slots of a row, once for each head: bucket by bucket, (N, H, L)."""

    gather: Tensor  # (S * H,) row of the (T * H, D) matrix each slot reads; padding reads some row
    scatter: Tensor  # (T * H,) slot of each row
    padding: Tensor  # (S * H, 1) bool


@dataclass
class Slots:
    """The tokens of a row, gathered into buckets of padded sequences."""

    T: int
    shapes: list[tuple[int, int]]  # (N, L) of each bucket
    gather: Tensor  # (S,) token of each slot; T where the slot is padding
    by_heads: dict[int, HeadSlots] = field(default_factory=dict)

    @property
    def longest(self) -> int:
        """L of the longest bucket."""
        return max((L for _, L in self.shapes), default=0)

    def to(self, device: torch.device) -> Slots:
        """The same slots with their tensors on `device`."""
        return Slots(self.T, self.shapes, self.gather.to(device, non_blocking=True))

    def buckets(self) -> list[Tensor]:
        """The token of each slot, (N, L) a bucket."""
        parts = self.gather.split([N * L for N, L in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def heads(self, H: int) -> HeadSlots:
        """Slots for H heads, made once."""
        if H not in self.by_heads:
            device, T = self.gather.device, self.T
            head = torch.arange(H, device=device)[:, None]  # (H, 1)
            tokens = [bucket[:, None] for bucket in self.buckets()]  # (N, 1, L) each
            padding = torch.cat([(t == T).expand(-1, H, -1).reshape(-1) for t in tokens])
            gather = torch.cat([(t.clamp(max=T - 1) * H + head).view(-1) for t in tokens])
            scatter = torch.empty(T * H, dtype=torch.int64, device=device)
            scatter[gather[~padding]] = (~padding).nonzero().squeeze(1)
            self.by_heads[H] = HeadSlots(gather, scatter, padding[:, None])
        return self.by_heads[H]


@dataclass
class AttentionPlan:
    """Which keys each query sees: those of its own sequence. Queries and keys are tokens of one row, or of two."""

    q_offsets: Tensor  # (sequences + 1,) int32: the queries of sequence i are row[offsets[i]:offsets[i + 1]]
    k_offsets: Tensor
    q_longest: int
    k_longest: int
    q: Slots
    k: Slots  # the same buckets with other lengths; within one row the same object
    by_mask: dict[tuple[torch.dtype, int | None, bool], list[Tensor]] = field(default_factory=dict)
    by_prefix: dict[int, Any] = field(default_factory=dict)  # what attention with keys before each sequence's needs

    def biases(self, dtype: torch.dtype, window: int | None = None, causal: bool = False) -> list[Tensor]:
        """0 where a query may look and minus infinity elsewhere: (N or 1, 1, Lq or 1, Lk) a bucket.

        A window reaches `window - 1` tokens to either side, only back where `causal`.
        """
        key = (dtype, window, causal)
        if key not in self.by_mask:
            hidden = [_hidden(keys == self.k.T, window, causal) for keys in self.k.buckets()]
            zeros = [torch.zeros(x.shape, device=x.device) for x in hidden]
            self.by_mask[key] = [z.masked_fill_(x, -torch.inf).to(dtype) for z, x in zip(zeros, hidden, strict=True)]
        return self.by_mask[key]

    def to(self, device: torch.device) -> AttentionPlan:
        """The same plan with its tensors on `device`."""
        q_offsets, k_offsets = (x.to(device, non_blocking=True) for x in (self.q_offsets, self.k_offsets))
        q = self.q.to(device)
        k = q if self.k is self.q else self.k.to(device)
        return AttentionPlan(q_offsets, k_offsets, self.q_longest, self.k_longest, q, k)


def _hidden(padding: Tensor, window: int | None, causal: bool) -> Tensor:
    """(N, L) padding of the keys -> True where a query may not look, (N or 1, 1, L or 1, L)."""
    padding, L = padding[:, None, None], padding.shape[1]
    position = torch.arange(L, device=padding.device)
    distance = position[:, None] - position  # (L, L) from a key forward to its query
    if causal:  # no real query sees padding, which is later; a padded query sees its own key, or would be NaN
        return ((distance < 0) | (distance >= (window or L)))[None, None]
    if window is None or window >= L:
        return padding
    # A padded query may look anywhere, or its empty softmax would be NaN.
    return padding | ((distance.abs() >= window) & ~padding.transpose(2, 3))


@dataclass
class RowLayout:
    """Where the sequences of a packed row lie; the filler at its end is one more sequence, which nothing reads."""

    lengths: Lengths  # (sequences,), the filler's last
    filler: int  # tokens
    attention: AttentionPlan  # of the row's tokens to each other

    @property
    def T(self) -> int:
        """Tokens of the row with its filler."""
        return self.attention.q.T

    def to(self, device: torch.device) -> RowLayout:
        """The same layout with its tensors on `device`."""
        return RowLayout(self.lengths, self.filler, self.attention.to(device))

    def fill(self, tokens: Tensor) -> Tensor:
        """(T - filler, ...) -> (1, T, ...), the first token repeated at the end."""
        return torch.cat([tokens, tokens[:1].expand(self.filler, *tokens.shape[1:])])[None]


def make_layout(lengths: Lengths, always_fill: bool = False) -> RowLayout:
    """Plan the attention of sequences of these lengths, which lie end to end in this order.

    With `always_fill` there is a filler even where the tokens need none, so that a row pairs with any other one.
    """
    filler = int(-lengths.sum() % ROW_TOKENS) or (ROW_TOKENS if always_fill else 0)
    if filler:
        lengths = np.append(lengths, filler)
    return RowLayout(lengths, filler, plan_attention(lengths, lengths))


def plan_attention(q_lengths: Lengths, k_lengths: Lengths, q_multiple: int | None = None) -> AttentionPlan:
    """Plan the attention of each sequence of one row to the sequence of the same number in another, or in its own.

    Queries of a bucket are padded to a multiple of `q_multiple`, by default of BUCKET_TOKENS as the keys are.
    """
    if len(q_lengths) != len(k_lengths):
        raise ValueError(f"{len(q_lengths)} sequences cannot attend to {len(k_lengths)}, one each")
    within = k_lengths is q_lengths
    q_rounded, k_rounded = (
        -(-lengths // multiple) * multiple
        for lengths, multiple in ((q_lengths, q_multiple or BUCKET_TOKENS), (k_lengths, BUCKET_TOKENS))
    )
    shapes = list(dict.fromkeys(zip(q_rounded.tolist(), k_rounded.tolist(), strict=True)))
    members = [np.flatnonzero((q_rounded == Lq) & (k_rounded == Lk)) for Lq, Lk in shapes]
    q = _slots(q_lengths, members, [Lq for Lq, _ in shapes])
    k = q if within else _slots(k_lengths, members, [Lk for _, Lk in shapes])
    q_offsets = _offsets(q_lengths)
    k_offsets = q_offsets if within else _offsets(k_lengths)
    return AttentionPlan(q_offsets, k_offsets, int(q_lengths.max(initial=0)), int(k_lengths.max(initial=0)), q, k)


def _offsets(lengths: Lengths) -> Tensor:
    return torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def _slots(lengths: Lengths, members: list[Lengths], bucket_lengths: list[int]) -> Slots:
    """The slots of buckets that hold these sequences, padded to these lengths."""
    starts, T = np.cumsum(lengths) - lengths, int(lengths.sum())
    slots = []
    for mine, L in zip(members, bucket_lengths, strict=True):
        inside = np.arange(L)
        real = inside < lengths[mine, None]
        slots.append(np.where(real, starts[mine, None] + inside, T).ravel())
    shapes = [(len(mine), L) for mine, L in zip(members, bucket_lengths, strict=True)]
    return Slots(T, shapes, torch.from_numpy(np.concatenate(slots)))
