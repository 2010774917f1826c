"""A smaller model from some of a model's layers: fewer layers, the same width.

The result is an ordinary model folder of its architecture. Fine-tune it, with `methods.distil` from the full model,
since layers that are left out without training cost much (Sajjad et al. 2023; Sanh et al. 2019 keep every other one).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from research.common.errors import UserError


def keep_layers(model: Any, kept: Sequence[int]) -> None:
    """Leave these layers, by number from 0, in the model and in its config.

    Raises UserError for a number there is not, and for a model whose layers are not one list: encoder-decoders, ALBERT.
    """
    config = model.config
    count = config.num_hidden_layers
    parents = [
        (parent, name)
        for parent in model.base_model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == count
    ]
    if config.is_encoder_decoder or len(parents) != 1:
        raise UserError(f"model.keep_layers: the layers of a '{config.model_type}' model are not one list; remove it.")
    if max(kept) >= count:
        raise UserError(f"model.keep_layers: there is no layer {max(kept)}; the model has {count}, from 0.")
    ((parent, name),) = parents
    layers = getattr(parent, name)
    setattr(parent, name, nn.ModuleList([layers[number] for number in kept]))
    for number, layer in enumerate(getattr(parent, name)):
        for module in layer.modules():
            for attribute in ("layer_idx", "layer_id"):  # the place of its keys and values in a cache
                if isinstance(getattr(module, attribute, None), int):
                    setattr(module, attribute, number)
    for key, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == count and key.startswith("layer_"):
            setattr(config, key, [value[number] for number in kept])
    config.num_hidden_layers = len(kept)
