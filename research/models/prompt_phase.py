"""Keys and values of prompts that are computed together, as one packed row: the first phase of generating.

A decoder continues from a cache whose prompts end together, padded in front. Made by a padded batch, the cache costs
the longest prompt for each; made here, it costs the prompts' own tokens.

Shapes: N prompts, L longest, T tokens of the row with its filler, H heads of keys, D width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from research.batching.pack import MicroBatch, make_stream
from research.batching.store import INPUT
from research.models.backbone import Backbone
from research.models.load import DECODER


def packed_cache(backbone: Backbone, prompts: Sequence[Tensor]) -> DynamicCache | None:
    """Of all tokens but the last of each prompt, (N, H, L - 1, D) in each layer; None where it would not be exact.

    That is where the model is not packed, keeps other things than keys and values, or sees a window of them; and where
    prompts of one length pad nothing.
    """
    lengths = np.array([len(prompt) - 1 for prompt in prompts], dtype=np.int64)
    if not backbone.packed or backbone.family != DECODER or lengths.min() < 1 or lengths.min() == lengths.max():
        return None
    others = ("sliding_window", "trained_prefix")
    if any(getattr(module, name, None) is not None for module in backbone.model.modules() for name in others):
        return None
    ids = torch.cat([prompt[:-1] for prompt in prompts])
    stream = make_stream({"input_ids": ids}, lengths).to(ids.device)
    cache = DynamicCache()
    inputs: dict[str, Any] = backbone.inputs(MicroBatch({INPUT: stream}))
    backbone.model.base_model(**{**inputs, "use_cache": True, "past_key_values": cache})
    T = inputs["input_ids"].shape[1]
    layers = [layer for layer in cache.layers if isinstance(layer, DynamicLayer) and not layer.is_sliding]
    if len(layers) < len(cache.layers) or any(layer.get_seq_length() != T for layer in layers):
        return None
    index = places(lengths).to(ids.device)  # (N, L - 1)
    for layer in layers:
        assert layer.keys is not None and layer.values is not None
        layer.keys, layer.values = (x[0][:, index].transpose(0, 1).contiguous() for x in (layer.keys, layer.values))
    return cache


def places(lengths: np.ndarray) -> Tensor:
    """(N, L) token of the row for each place of sequences that end together; in front of a shorter one some token."""
    longest = int(lengths.max())
    before = longest - lengths  # places that no token fills
    starts = np.cumsum(lengths) - lengths
    return torch.from_numpy(np.maximum(np.arange(longest) - before[:, None], 0) + starts[:, None])
