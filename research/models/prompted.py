"""Trained vectors in front of each sequence: rows of a prompt, which ids above the vocabulary name.

Shapes: P tokens of the prompt, W width of the embeddings, T tokens of a stream, N sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from research.batching.pack import MicroBatch, Stream, cross_plan, make_stream


def embed_prompt(table: nn.Module, prompt: nn.Module, words: int) -> None:
    """Make an embedding give row i of `prompt()`, (P, W), for the id `words + i`. It becomes the table's `prompt`."""
    kept: list[Tensor] = []
    table.prompt = prompt

    def words_alone(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        kept.append(args[0])
        return (torch.where(args[0] < words, args[0], 0),)

    def with_prompt(module: Any, args: Any, output: Tensor) -> Tensor:
        ids = kept.pop()
        if not bool((ids >= words).any()):
            return output
        rows = module.prompt().to(output.dtype)[(ids - words).clamp(min=0)]  # (..., W)
        return torch.where((ids >= words)[..., None], rows, output)

    table.register_forward_pre_hook(words_alone)
    table.register_forward_hook(with_prompt)


def lengthened(micro: MicroBatch, P: int, words: int) -> MicroBatch:
    """The micro-batch with P tokens of the prompt in front of each sequence of its first stream."""
    if not P:
        return micro
    name = next(iter(micro.streams))
    streams = {**micro.streams, name: with_prompt(micro.first, P, words, len(micro.streams) > 1)}
    cross = cross_plan(streams)
    return MicroBatch(streams, cross.to(micro.first.positions.device) if cross else None, micro.idle)


def with_prompt(stream: Stream, P: int, words: int, paired: bool) -> Stream:
    """The stream with P ids from `words` on in front of each sequence; of its tokens' columns, what a model reads."""
    device = stream.positions.device
    longer = make_stream({}, stream.lengths + P, stream.examples, stream.sequences, stream.layout is not None, paired)
    longer = longer.to(device)
    is_own = longer.positions >= P
    ids = longer.positions + words
    ids[is_own] = stream.tokens["input_ids"]
    longer.tokens["input_ids"] = ids
    if (types := stream.tokens.get("token_type_ids")) is not None:
        longer.tokens["token_type_ids"] = torch.zeros_like(ids).masked_scatter_(is_own, types)
    return longer


def in_front(P: int, words: int) -> Callable[[Tensor], Tensor]:
    """What puts a prompt's ids in front of one sequence's."""
    return lambda ids: torch.cat([torch.arange(words, words + P, device=ids.device, dtype=ids.dtype), ids])
