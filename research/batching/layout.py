"""Where the sequences of a packed row lie, and the buckets in which a CPU attends to them.

Shapes: T tokens of the row, H heads, D width of a head, N sequences of a bucket, L length of a bucket,
S = sum of N * L over the buckets, the slots.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
