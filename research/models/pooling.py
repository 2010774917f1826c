"""A text's vector, from what an encoder says of its tokens.

Shapes: T tokens, N sequences, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from research.batching.pack import Stream


def pooled(hidden: Tensor, stream: Stream, pooling: str) -> Tensor:
    """(T, W) -> (N, W): the mean over a sequence's tokens, or with `first` its first token's."""
    lengths = torch.from_numpy(stream.lengths).to(hidden.device)
    if pooling == "first":
        return hidden[lengths.cumsum(0) - lengths]
    sequence = torch.repeat_interleave(torch.arange(len(lengths), device=hidden.device), lengths)
    sums = hidden.new_zeros(len(lengths), hidden.shape[1]).index_add(0, sequence, hidden)
    return sums / lengths[:, None]
