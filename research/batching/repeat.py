"""A micro-batch with each of its sequences twice, for methods that compare two passes over the same text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from research.batching.layout import make_layout
from research.batching.pack import MicroBatch


def twice(micro: MicroBatch) -> MicroBatch:
    """All sequences, then all of them again; the second ones are of examples of their own, -1 - example."""
    lengths = np.tile(micro.lengths, 2)
    return replace(
        micro,
        tokens={name: torch.cat([column, column]) for name, column in micro.tokens.items()},
        sequences={name: torch.cat([column, column]) for name, column in micro.sequences.items()},
        lengths=lengths,
        examples=np.concatenate([micro.examples, -1 - micro.examples]),
        layout=make_layout(lengths).to(micro.positions.device) if micro.layout is not None else None,
        positions=torch.cat([micro.positions, micro.positions]),
    )
