"""A micro-batch with each of its sequences twice, for methods that compare two passes over the same text."""

from __future__ import annotations

import numpy as np
import torch

from research.batching.pack import MicroBatch, Stream, cross_plan, make_stream


def twice(micro: MicroBatch) -> MicroBatch:
    """All sequences, then all of them again; the second ones are of examples of their own, -1 - example."""
    streams = {name: _twice(stream, len(micro.streams) > 1) for name, stream in micro.streams.items()}
    cross = cross_plan(streams)
    return MicroBatch(streams, cross.to(micro.first.positions.device) if cross else None, micro.idle)


def _twice(stream: Stream, paired: bool) -> Stream:
    again = make_stream(
        tokens={name: torch.cat([column, column]) for name, column in stream.tokens.items()},
        lengths=np.tile(stream.lengths, 2),
        examples=np.concatenate([stream.examples, -1 - stream.examples]),
        sequences={name: torch.cat([column, column]) for name, column in stream.sequences.items()},
        packed=stream.layout is not None,
        paired=paired,
    )
    again.marked = None if stream.marked is None else np.tile(stream.marked, 2)
    again.features = None if stream.features is None else torch.cat([stream.features, stream.features])
    return again.to(stream.positions.device)
