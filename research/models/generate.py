"""Generate text with a model that is fed in micro-batches: greedy or beam search over padded batches, with a cache.

What is generated depends on the batch it is generated in, in bf16 often: a batch is a micro-batch of the evaluation,
which is cut from the data alone. Settings of the checkpoint do not act: the model's own generation config is replaced.

Shapes: N sequences, L longest prompt, G longest output.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PretrainedConfig

from research.batching.pack import MicroBatch
from research.batching.store import SOURCE
from research.common import compat
from research.common.errors import UserError
from research.models.attention import PACKED
from research.models.backbone import Backbone, padding_id
from research.models.load import ENCODER_DECODER, without_advice
from research.models.positions import set_plans


@dataclass(frozen=True)
class Output:
    """One generated text."""

    tokens: list[int]  # without the prompt and the end token
    ended: bool  # by the end token; else by the limit


def generation_config(own: PretrainedConfig, end: int, max_new_tokens: int, num_beams: int) -> GenerationConfig:
    """All that decides what is generated, and nothing of the checkpoint's but its token ids.

    Raises UserError for an encoder-decoder that names no start token.
    """
    settings: dict[str, Any] = {
        "max_new_tokens": max_new_tokens, "num_beams": num_beams, "do_sample": False, "use_cache": True,
        "eos_token_id": end, "pad_token_id": padding_id(own),
    }  # fmt: skip
    if own.is_encoder_decoder:
        settings["decoder_start_token_id"] = start_token(own)
    return GenerationConfig(**settings)


def start_token(own: PretrainedConfig) -> int:
    """The token that a decoder's output begins with. Raises UserError where the model names none."""
    start: int | None = getattr(own, "decoder_start_token_id", None)
    if start is None:
        raise UserError(f"The '{own.model_type}' model has no decoder_start_token_id in its config.json; add it there.")
    return start


@torch.no_grad()
def generate(backbone: Backbone, micro: MicroBatch, settings: GenerationConfig) -> list[Output]:
    """An output for each sequence of the source, or for each prompt: the tokens before the first target."""
    model: Any = backbone.model
    pad = padding_id(model.config)
    if backbone.family == ENCODER_DECODER:
        source = micro.streams[SOURCE]
        ids, mask = source.pad(source.tokens["input_ids"], pad), source.mask
        skipped = 1  # the start token
    else:
        ids, mask = left_padded(prompts(micro), pad)
        skipped = ids.shape[1]
    with native_attention(backbone), without_advice():
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)  # (N, L or 1 + G)
    return [cut(row, settings.eos_token_id) for row in out[:, skipped:].tolist()]


def prompts(micro: MicroBatch) -> list[Tensor]:
    """The tokens of each sequence up to the one that predicts the first target; all where there is no target."""
    stream = micro.first
    found = []
    sizes = stream.lengths.tolist()
    for ids, label in zip(*(stream.tokens[name].split(sizes) for name in ("input_ids", "label")), strict=True):
        targets = (label >= 0).nonzero()
        found.append(ids[: int(targets[0]) + 1] if len(targets) else ids)
    return found


def left_padded(rows: list[Tensor], pad: int) -> tuple[Tensor, Tensor]:
    """(N, L) ids and mask of rows that end together, as a decoder goes on from them."""
    L = max(map(len, rows))
    ids = rows[0].new_full((len(rows), L), pad)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, L - len(row) :], mask[i, L - len(row) :] = row, 1
    return ids, mask


def cut(tokens: list[int], end: int) -> Output:
    """The tokens before the first end token; what follows it is padding."""
    return Output(tokens[: tokens.index(end)], True) if end in tokens else Output(tokens, False)


@contextmanager
def native_attention(backbone: Backbone) -> Iterator[None]:
    """Within it the model computes padded batches, with its own attention and positions."""
    set_plans(backbone.taught, None)
    if not backbone.packed:
        yield
        return
    backbone.model.set_attn_implementation(compat.native_attention(backbone.model))
    try:
        yield
    finally:
        backbone.model.set_attn_implementation(PACKED)
