"""Trained keys and values in front of those of each sequence, the same for all: exact attention over packed rows.

Shapes: P keys of the prefix, W width of the model, T tokens of the row, H heads, D width of a head, N sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from research.batching.layout import AttentionPlan, plan_attention


class Prefix(nn.Module):
    """Of one layer; its attention module has it as `trained_prefix`. Nothing reads it before it is `active`.

    It begins standard normal, as that of P-Tuning v2 and of peft: near zero it would only draw attention away.
    """

    def __init__(self, P: int, W: int) -> None:
        super().__init__()
        self.keys, self.values = (nn.Parameter(torch.randn(P, W)) for _ in range(2))
        self.active = False


@dataclass
class Prefixed:
    """How the queries of a row attend where P keys stand in front of each sequence's own."""

    plan: AttentionPlan
    index: Tensor  # (T + N * P,) of each key in the prefix followed by the row


def prefixed(prefix: Prefix, plan: AttentionPlan, k: Tensor, v: Tensor) -> tuple[AttentionPlan, Tensor, Tensor]:
    """k, v: (T, H, D) of the row. Returns the plan, keys and values with the prefix before each sequence."""
    P = len(prefix.keys)
    if P not in plan.by_prefix:
        plan.by_prefix[P] = _prefixed(plan, P)
    found: Prefixed = plan.by_prefix[P]
    longer = [
        torch.cat([front.view(P, *x.shape[1:]).to(x.dtype), x]).index_select(0, found.index)
        for front, x in ((prefix.keys, k), (prefix.values, v))
    ]
    return found.plan, longer[0], longer[1]


def _prefixed(plan: AttentionPlan, P: int) -> Prefixed:
    offsets = plan.k_offsets.cpu().numpy().astype(np.int64)
    lengths = np.diff(offsets)
    queries: Any = np.diff(plan.q_offsets.cpu().numpy().astype(np.int64))
    inside = np.arange(int(lengths.sum()) + P * len(lengths))
    starts = offsets[:-1] + P * np.arange(len(lengths))  # of each sequence with its prefix
    place = inside - np.repeat(starts, lengths + P)
    index = np.where(place < P, place, np.repeat(offsets[:-1], lengths + P) + place)
    device = plan.q_offsets.device
    return Prefixed(plan_attention(queries, lengths + P).to(device), torch.from_numpy(index).to(device))
