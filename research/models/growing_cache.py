"""A cache of keys and values that has room for the tokens to come; the library's copies all it has at each token.

Shapes: N sequences, H heads, L tokens so far, D width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer


class GrowingLayer(DynamicLayer):
    """A filled `DynamicLayer` with room for more tokens.

    Under autocast it keeps the type that attention computes in: rotated keys are fp32, and so is what stands with them
    in the library's layer, all of which attention would cast at each token.
    """

    def __init__(self, filled: DynamicLayer, room_tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        assert filled.keys is not None and filled.values is not None
        device = filled.keys.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else filled.keys.dtype
        self.lazy_initialization(filled.keys.to(dtype), filled.values)
        self.places = [_with_room(x.to(dtype), room_tokens) for x in (filled.keys, filled.values)]
        self._show(filled.get_seq_length())

    def _show(self, length_tokens: int) -> tuple[Tensor, Tensor]:
        """Let the layer have so many tokens."""
        keys, values = (x[:, :, :length_tokens] for x in self.places)
        self.keys, self.values = keys, values
        return keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add (N, H, 1, D) keys and values; returns all of them, (N, H, L, D)."""
        before = self.get_seq_length()
        after = before + key_states.shape[2]
        for place, new in zip(self.places, (key_states, value_states), strict=True):
            place[:, :, before:after] = new
        return self._show(after)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these sequences only."""
        length = self.get_seq_length()
        self.places = [x[indices] for x in self.places]
        self._show(length)


def make_room(cache: Any, room_tokens: int) -> None:
    """Let a filled cache take so many more tokens in place; layers of other kinds, such as of a window, stay."""
    own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    if isinstance(own, DynamicCache):
        own.layers = [
            GrowingLayer(layer, room_tokens) if type(layer) is DynamicLayer and layer.get_seq_length() else layer
            for layer in own.layers
        ]


def _with_room(x: Tensor, room_tokens: int) -> Tensor:
    N, H, L, D = x.shape
    places = x.new_empty(N, H, L + room_tokens, D)
    places[:, :, :L] = x
    return places
