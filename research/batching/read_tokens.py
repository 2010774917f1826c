"""The tokens of a packed row whose outputs a head reads: the last layer asks for no other.

Shapes: T tokens of a row without its filler, N sequences, R tokens that are read, with those of the filler.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from research.batching.layout import ROW_TOKENS, AttentionPlan, Lengths, RowLayout, plan_attention

Mask = NDArray[np.bool_]
ALL, FIRST, MARKED = "all", "first", "marked"  # tokens that a head reads: each, the first of each sequence, the task's


@dataclass
class Reading:
    """Where the tokens that are read lie in a row, and how they attend to all of it."""

    size: int  # tokens that are read, without the filler's
    places: Tensor  # (R,) of the row
    attention: AttentionPlan  # queries: the tokens that are read; keys: all of the row

    def spread(self, x: Tensor, T: int) -> Tensor:
        """Outputs of the tokens that are read, (R, ...), in the places of all, (T, ...): 0 elsewhere."""
        return x.new_zeros(T, *x.shape[1:]).index_copy(0, self.places[: self.size], x[: self.size])


def mask_of(which: str, marked: Mask | None, lengths: Lengths) -> Mask | None:
    """(T,) the tokens of sequences of these lengths that are read; None: all. `marked`: by the task.

    At least one of each sequence: its first, where the task marks none.
    """
    if which == ALL or (which == MARKED and marked is None):
        return None
    starts = np.cumsum(lengths) - lengths
    mask = np.zeros(int(lengths.sum()), dtype=np.bool_)
    if which == FIRST or marked is None:
        mask[starts] = True
    else:
        mask |= marked
        mask[starts] |= ~np.logical_or.reduceat(marked, starts)
    return mask


def make_reading(layout: RowLayout, mask: Mask, device: torch.device) -> Reading:
    """Plan the attention of the tokens of a row that `mask`, (T,), marks: one or more of each sequence."""
    places = np.flatnonzero(mask)
    size, T = len(places), len(mask)
    own = layout.lengths[:-1] if layout.filler else layout.lengths
    counts = np.add.reduceat(mask, np.cumsum(own) - own, dtype=np.int64)
    single = int(counts.max()) == 1
    if layout.filler:  # where one token is read of each sequence, their number is the same in every step anyway
        filler = 1 if single else 1 + int(-(size + 1) % ROW_TOKENS)
        places, counts = np.append(places, np.full(filler, T)), np.append(counts, filler)
    attention = plan_attention(counts, layout.lengths, q_multiple=1 if single else None)
    return Reading(size, torch.from_numpy(places).to(device, non_blocking=True), attention.to(device))
