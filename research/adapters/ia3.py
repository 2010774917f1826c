"""IA3: the outputs of keys and values and the inputs of the feed-forward's second layer are scaled by trained vectors.

Liu et al. 2022, Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning. The layers and
the file format are peft's; head and poolers are trained in full. Merged, it costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from research.adapters import peft_layers
from research.adapters.hooks import AdapterHooks
from research.adapters.peft_layers import ADAPTER, import_peft, layers_of
from research.adapters.targets import ROLES, ends_of, targets
from research.config.key import at_least, key


@dataclass
class Keys:
    outputs: list[str] = key(
        ["k", "v"], f"linear layers whose outputs are scaled, by role ({', '.join(ROLES)}) or name"
    )
    inputs: list[str] = key(["down"], "layers whose inputs are scaled, by role or name")
    top_layers: int | None = key(None, "adapt so many of the highest layers; null: all", at_least(1))


class Adapter(AdapterHooks):
    has_own_file = True

    def apply(self, model: PreTrainedModel) -> str:
        """Raises UserError without peft, for a model that has an adapter, and for a target that hits nothing."""
        peft = import_peft("ia3")
        peft_layers.refuse_two_adapters(model, "ia3")
        fed = targets(model, self.keys.inputs, self.keys.top_layers) if self.keys.inputs else []
        hits = targets(model, [*self.keys.outputs, *self.keys.inputs], self.keys.top_layers)
        peft_layers.inject(model, self._settings(peft, hits, fed))
        return f"ia3: {len(hits)} linear layers scaled ({ends_of(hits)})"

    @staticmethod
    def _settings(peft: Any, hits: list[str], fed: list[str]) -> Any:
        return peft.IA3Config(target_modules=list(hits), feedforward_modules=list(fed))

    def plain_state(self, model: PreTrainedModel, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The scaled weights, in their own precision."""
        layers = scaled_layers(model)
        plain = peft_layers.without_adapter(state, layers, (".ia3_l.",))
        for name, layer in layers.items():
            scale = state[f"{name}.ia3_l.{ADAPTER}"].flatten()  # of the inputs or the outputs
            weight = plain[f"{name}.weight"]  # (out, in); GPT-2's Conv1D (in, out)
            by_row = layer.is_feedforward == layer.fan_in_fan_out
            plain[f"{name}.weight"] = weight * (scale[:, None] if by_row else scale)
            if not layer.is_feedforward and f"{name}.bias" in plain:
                plain[f"{name}.bias"] = plain[f"{name}.bias"] * scale
        return {name: plain[name] for name in sorted(plain)}

    def export(
        self, model: PreTrainedModel, state: dict[str, Tensor], base: str, revision: str | None, folder: Path
    ) -> None:
        """What `PeftModel.from_pretrained` opens: the vectors, with head and poolers."""
        layers = scaled_layers(model)
        own = {name: tensor for name, tensor in state.items() if ".ia3_l." in name}
        fed = [name for name, layer in layers.items() if layer.is_feedforward]
        settings = self._settings(import_peft(), list(layers), fed)
        peft_layers.save(model, own, state, settings, base, revision, folder)


def scaled_layers(model: PreTrainedModel) -> dict[str, Any]:
    """peft's IA3 layers by name."""
    return layers_of(model, import_peft("ia3").tuners.ia3.IA3Layer)
