"""What a model of `transformers` is made of: its kind of attention, its output layer, its padding.

Shapes: V vocabulary.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import EncoderDecoderModel, PretrainedConfig, PreTrainedModel

from research.models.attention import role_of
from research.models.load import DECODER, ENCODER, ENCODER_DECODER


def attention_family(model: PreTrainedModel) -> str:
    """encoder, decoder (its attention is causal) or encoder-decoder."""
    if model.config.is_encoder_decoder:
        return ENCODER_DECODER
    return DECODER if any(role_of(module) == DECODER for module in model.modules()) else ENCODER


def output_layer(model: PreTrainedModel) -> nn.Module | None:
    """The layer that scores the vocabulary, if the model has one."""
    layer: Any = model.get_output_embeddings()
    if layer is None and isinstance(model, EncoderDecoderModel):
        layer = model.decoder.get_output_embeddings()
    return layer if isinstance(layer, nn.Module) else None


def head_bias(model: PreTrainedModel, head: nn.Module) -> Tensor | None:
    """What is added to the products of the output layer, (V,): its bias, and that of BART's family beside it."""
    own, beside = getattr(head, "bias", None), getattr(model, "final_logits_bias", None)
    return own if beside is None else beside[0] if own is None else own + beside[0]


def padding_id(config: PretrainedConfig) -> int:
    """A token for padding, which nothing reads; 0 where the model names none."""
    return getattr(config, "pad_token_id", None) or 0


def drop_no_layers(model: nn.Module) -> bool:
    """Switch LayerDrop off, which draws once per forward pass. Was it on?"""
    dropping = [module for module in model.modules() if getattr(module, "layerdrop", 0)]
    for module in dropping:
        module.layerdrop = 0.0  # type: ignore[assignment]
    return bool(dropping)
