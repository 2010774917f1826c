"""Divergences between the distributions of two passes.

Shapes: M targets, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

COMPARES = "reads the outputs of its own passes"  # what only one method of a run can do


def symmetric_divergence(logits: Tensor) -> Tensor:
    """(KL(p1 || p2) + KL(p2 || p1)) / 2, summed over targets; logits (2 M, C): those of p1, then those of p2."""
    log_p = torch.log_softmax(logits, -1)
    log_p = log_p.masked_fill(log_p == -torch.inf, 0.0)  # a class that is not there: p is 0 in both
    first, second = log_p.chunk(2)
    weight = torch.where(logits > -torch.inf, log_p.exp(), 0.0)
    p, q = weight.chunk(2)
    return ((p - q) * (first - second)).sum() / 2


def both_ways(p: list[Tensor], q: list[Tensor]) -> Tensor:
    """KL(p || q) + KL(q || p), summed over targets; the mean over a target's distributions, each (M, C)."""
    sums = [2 * symmetric_divergence(torch.cat(pair)) for pair in zip(p, q, strict=True)]
    return torch.stack(sums).mean()
