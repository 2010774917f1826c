"""The last layer of an encoder of BERT's family, computed for the tokens alone that the head reads.

Keys and values are those of all tokens; queries, the output projection and the feed-forward only of those that are
read: of one token a text, five sixths of the layer are saved.

Shapes: T tokens of the row with its filler, R tokens that are read with the filler's, W width, H heads, D of a head.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from research.batching.pack import MicroBatch
from research.batching.read_tokens import ALL, FIRST
from research.models.attention import Plans, packed_attention
from research.models.load import ENCODER
from research.models.probe import in_evaluation

PARTS = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output", "intermediate",
         "output")  # fmt: skip


def last_layer(model: PreTrainedModel) -> nn.Module | None:
    """The last layer, if it has the parts that BERT's has."""
    encoder = getattr(model.base_model, "encoder", None)
    stack = getattr(encoder, "layer", None)
    if not isinstance(stack, nn.ModuleList) or not len(stack):
        return None
    found = {name for name, _ in stack[-1].named_modules()}
    return stack[-1] if set(PARTS) <= found and not hasattr(stack[-1], "crossattention") else None


def read_alone(layer: Any) -> None:
    """Let a layer compute what `plans.reading` names, where it names anything; its weights and names stay."""
    whole = layer.forward

    def forward(hidden_states: Tensor, *args: Any, plans: Plans | None = None, **others: Any) -> Any:
        if plans is None or plans.reading is None:
            return whole(hidden_states, *args, plans=plans, **others)
        return _of_read(layer, hidden_states, plans)

    layer.forward = forward


def _of_read(layer: Any, x: Tensor, plans: Plans) -> Tensor:
    """(1, T, W) -> (1, R, W)."""
    reading, own = plans.reading, layer.attention.self
    assert reading is not None
    read = x.index_select(1, reading.places)
    q, k, v = (
        projection(y).unflatten(-1, (-1, own.attention_head_size)).transpose(1, 2)  # (1, H, R or T, D)
        for projection, y in ((own.query, read), (own.key, x), (own.value, x))
    )
    dropout = own.dropout.p if own.training else 0.0
    narrow = Plans({ENCODER: reading.attention}, calls=plans.calls)
    attended, _ = packed_attention(own, q, k, v, None, dropout=dropout, scaling=own.scaling, plans=narrow)
    after_attention = layer.attention.output(attended.flatten(2), read)
    out: Tensor = layer.output(layer.intermediate(after_attention), after_attention)
    return out


def first_suffices(backbone: Any, micro: MicroBatch, tolerance: float) -> bool:
    """Does a sequence-level head give the same for the first token of each sequence as for all, in a small batch?"""
    micro = micro.to(next(backbone.model.parameters()).device)
    try:
        with in_evaluation(backbone.model):
            expected, got = (backbone.logits_of(micro, which) for which in (ALL, FIRST))
        return bool((got - expected).abs().max() <= tolerance * expected.abs().max())
    except Exception:  # a head that takes no sequences of one token
        return False


def reads_alone(backbone: Any, micro: MicroBatch, tolerance: float) -> bool:
    """Let the last layer compute tokens that are read alone, where that changes nothing in a small batch."""
    layer = last_layer(backbone.model)
    if layer is None or not backbone.packed or backbone.family != ENCODER:
        return False
    micro = micro.to(next(backbone.model.parameters()).device)
    reading, forward = micro.first.reading(FIRST), layer.forward
    assert reading is not None
    read_alone(layer)
    try:
        with in_evaluation(backbone.model):
            inputs = backbone.inputs(micro)
            expected = backbone.model.base_model(**inputs)[0][0, reading.places]
            inputs["plans"].reading = reading
            got = backbone.model.base_model(**inputs)[0][0]
        equal = got.shape == expected.shape and bool((got - expected).abs().max() <= tolerance * expected.abs().max())
    except Exception:  # each model class fails in a way of its own
        equal = False
    if not equal:
        layer.forward = forward
    return equal
