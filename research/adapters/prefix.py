"""Prefix tuning: trained keys and values stand in front of each sequence's own in every layer; the model is frozen.

Li and Liang 2021, Prefix-Tuning: Optimizing Continuous Prompts for Generation; without their reparametrisation, as in
Liu et al. 2022, P-Tuning v2. No sequence grows, but positions begin after the prefix, as in peft, whose file format it
has; head and poolers are trained in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from research.adapters.hooks import AdapterHooks, head_parameters, train_only
from research.adapters.prompt_rows import refuse_too_long, save_prompt, without_prompt
from research.common.errors import UserError
from research.config.key import at_least, key
from research.models.prefixed import Prefix

KINDS = ("bert", "roberta", "xlm-roberta", "camembert", "electra")  # whose attention takes earlier keys and values


@dataclass
class Keys:
    tokens: int = key(20, "keys and values in front of each sequence, in each layer", at_least(1))


class Adapter(AdapterHooks):
    has_own_file = True
    merges: ClassVar[bool] = False

    def apply(self, model: PreTrainedModel) -> str:
        """Raises UserError for an architecture whose attention takes none, and for a model that has a prefix."""
        kind = model.config.model_type
        if kind not in KINDS:
            raise UserError(f"adapter: prefix does not go with '{kind}' models; it does with {', '.join(KINDS)}.")
        layers = attention_layers(model)
        if any(hasattr(layer, "trained_prefix") for layer in layers):
            raise UserError("adapter: a prefix cannot be put before a model that has a prefix already.")
        train_only(model, head_parameters(model).values())
        for layer in layers:
            layer.trained_prefix = Prefix(self.keys.tokens, model.config.hidden_size)
        return f"prefix: {self.keys.tokens} trained keys and values in each of {len(layers)} layers"

    def feed(self, backbone: Any, longest: int) -> None:
        P = self.keys.tokens
        refuse_too_long(backbone.model, P, longest)
        if not backbone.packed:
            raise UserError("adapter: prefix needs packed rows; leave trainer.packing at auto.")
        backbone.first_position += P
        for layer in attention_layers(backbone.model):
            layer.trained_prefix.active = True

    def plain_state(self, model: PreTrainedModel, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return without_prompt(state)

    def export(
        self, model: PreTrainedModel, state: dict[str, Tensor], base: str, revision: str | None, folder: Path
    ) -> None:
        """What `PeftModel.from_pretrained` opens: keys and values of all layers, with head and poolers."""
        prefixes = [layer.trained_prefix for layer in attention_layers(model)]
        rows = torch.cat([x.detach() for prefix in prefixes for x in (prefix.keys, prefix.values)], dim=1)
        save_prompt("PREFIX_TUNING", rows, model, state, base, revision, folder)


def attention_layers(model: nn.Module) -> list[Any]:
    """The modules that compute attention, from the lowest layer up."""
    return [module for name, module in model.named_modules() if name.endswith("attention.self")]
