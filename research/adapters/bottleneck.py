"""Bottleneck adapters: small two-layer networks with a skip connection after chosen linear layers; the rest is frozen.

Houlsby et al. 2019, Parameter-Efficient Transfer Learning for NLP: one after the attention's output and one after the
feed-forward's, layer norms trained too. Pfeiffer et al. 2021, AdapterFusion: one after the feed-forward's alone. Both
stand before the residual is added, and begin as the identity. They cannot be merged into the model's weights.

Shapes: T tokens, W width of the layer, R size of the bottleneck.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from research.adapters.hooks import AdapterHooks, head_parameters, train_only
from research.adapters.targets import ends_of, targets
from research.common.errors import UserError
from research.config.key import Rule, at_least, key

PLACES = {"houlsby": ["o", "down"], "pfeiffer": ["down"]}  # variant -> roles of the layers it stands behind
ACTIVATIONS: dict[str, Any] = {"gelu": F.gelu, "relu": F.relu}


def one_of(values: Any) -> Rule:
    return Rule(lambda v: v in values, f"must be one of {', '.join(values)}")


@dataclass
class Keys:
    size: int = key(64, "width of the bottleneck; a sixteenth to half of the model's is usual", at_least(1))
    variant: str = key("pfeiffer", "houlsby: two in each layer; pfeiffer: one", one_of(PLACES))
    activation: str = key("gelu", "between its two layers: gelu or relu", one_of(ACTIVATIONS))
    norms: bool | None = key(None, "train the layer norms; null: for houlsby")
    top_layers: int | None = key(None, "adapt so many of the highest layers; null: all", at_least(1))


class Bottleneck(nn.Module):
    """x + up(activation(down(x))), with `up` zero at first."""

    def __init__(self, width: int, size: int, activation: str) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        self.activation = ACTIVATIONS[activation]
        nn.init.normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(T, W) -> (T, W)."""
        change: Tensor = self.up(self.activation(self.down(x)))
        return x + change


class Adapter(AdapterHooks):
    has_own_file = True
    merges: ClassVar[bool] = False

    def apply(self, model: PreTrainedModel) -> str:
        """Raises UserError for a model that has bottlenecks, one too wide, and where no layer is hit."""
        k = self.keys
        if any(isinstance(module, Bottleneck) for module in model.modules()):
            raise UserError("adapter: bottleneck cannot be added to a model that has bottlenecks already.")
        hits = targets(model, PLACES[k.variant], k.top_layers)
        widths = {name: width_of(model.get_submodule(name)) for name in hits}
        if k.size > min(widths.values()):
            raise UserError(f"adapter.size={k.size} is more than the width {min(widths.values())} of the layers.")
        trained = list(head_parameters(model).values())
        norms = [p for module in model.modules() if "Norm" in type(module).__name__ for p in module.parameters()]
        train_only(model, trained + (norms if k.norms or (k.norms is None and k.variant == "houlsby") else []))
        for name, width in widths.items():
            layer = model.get_submodule(name)
            layer.bottleneck = Bottleneck(width, k.size, k.activation)
            layer.register_forward_hook(_through)
        return f"bottleneck: {k.variant}, size {k.size} after {len(hits)} linear layers ({ends_of(hits)})"

    def plain_state(self, model: PreTrainedModel, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in state.items() if ".bottleneck." not in name}

    def export(
        self, model: PreTrainedModel, state: dict[str, Tensor], base: str, revision: str | None, folder: Path
    ) -> None:
        """The trained weights under their names in the model, and the keys; peft has no such adapter."""
        from safetensors.torch import save_file

        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        kept = {name: state[name].detach().cpu().contiguous() for name in state if name in trained}
        save_file(kept, folder / "adapter_model.safetensors")
        own = {f.name for f in fields(Keys)}
        keys = {name: value for name, value in asdict(self.keys).items() if name in own}
        settings = {"adapter": "bottleneck", "base_model": base, "revision": revision, **keys}
        (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _through(layer: Any, args: Any, output: Tensor) -> Tensor:
    changed: Tensor = layer.bottleneck(output)
    return changed


def width_of(layer: Any) -> int:
    """Of the outputs of a linear layer; GPT-2's Conv1D calls it otherwise."""
    return int(layer.nf if hasattr(layer, "nf") else layer.out_features)
