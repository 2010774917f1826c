"""LoRA: a low-rank change beside chosen linear layers is trained, W + (alpha / rank) B A; the rest is frozen.

Hu et al. 2022, LoRA: Low-Rank Adaptation of Large Language Models. `dora` trains the norms of the columns apart
(Liu et al. 2024), `rslora` divides by the root of the rank (Kalajdzievski 2023), `lr_ratio` lets B learn faster than A
(LoRA+, Hayou et al. 2024). The layers and the file format are peft's; head and poolers are trained in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from research.adapters import peft_layers
from research.adapters.hooks import AdapterHooks
from research.adapters.peft_layers import ADAPTER, import_peft, layers_of
from research.adapters.targets import ROLES, ends_of, targets
from research.common.errors import UserError
from research.config.key import above, at_least, inside, key


@dataclass
class Keys:
    rank: int = key(8, "rank of the change", at_least(1))
    alpha: float = key(16.0, "scale of the change: alpha / rank", above(0))
    dropout: float = key(0.0, "of the change's input", inside("[0, 1)"))
    targets: list[str] = key(["q", "v"], f"linear layers by role ({', '.join(ROLES)}) or by the end of their names")
    top_layers: int | None = key(None, "adapt so many of the highest layers; null: all", at_least(1))
    rslora: bool = key(False, "scale by alpha / root of the rank")
    dora: bool = key(False, "train the norms of the weight's columns apart")
    lr_ratio: float = key(1.0, "learning rate of B in that of A (LoRA+: 16)", above(0))


class Adapter(AdapterHooks):
    has_own_file = True

    def apply(self, model: PreTrainedModel) -> str:
        """Raises UserError without peft, for a model that has an adapter, and for a target that hits nothing."""
        peft = import_peft()
        peft_layers.refuse_two_adapters(model, "lora")
        hits = targets(model, self.keys.targets, self.keys.top_layers)
        refuse_rank(model, hits, self.keys.rank)
        peft_layers.inject(model, self._settings(peft, hits))
        return f"lora: rank {self.keys.rank} beside {len(hits)} linear layers ({ends_of(hits)})"

    def learning_rate(self, name: str) -> float:
        """The matrix B, which begins at zero, learns faster by `lr_ratio`."""
        return float(self.keys.lr_ratio) if ".lora_B." in name else 1.0

    def _settings(self, peft: Any, hits: list[str]) -> Any:
        k = self.keys
        return peft.LoraConfig(
            r=k.rank, lora_alpha=k.alpha, lora_dropout=k.dropout, target_modules=list(hits), use_rslora=k.rslora,
            use_dora=k.dora,
        )  # fmt: skip

    def plain_state(self, model: PreTrainedModel, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The adapted weights merged, in their own precision."""
        layers = adapted_layers(model)
        plain = peft_layers.without_adapter(state, layers, (".lora_",))
        plain |= {f"{name}.weight": merged(layer, name, state) for name, layer in layers.items()}
        return {name: plain[name] for name in sorted(plain)}

    def export(
        self, model: PreTrainedModel, state: dict[str, Tensor], base: str, revision: str | None, folder: Path
    ) -> None:
        """What `PeftModel.from_pretrained` opens: the low-rank weights, with head and poolers."""
        own = {name: tensor for name, tensor in state.items() if ".lora_" in name}
        settings = self._settings(import_peft(), list(adapted_layers(model)))
        peft_layers.save(model, own, state, settings, base, revision, folder)


def refuse_rank(model: PreTrainedModel, names: list[str], rank: int) -> None:
    """Raise UserError for a rank above the width of a layer."""
    narrow = min(min(model.get_submodule(name).weight.shape) for name in names)  # type: ignore[arg-type]
    if rank > narrow:
        raise UserError(f"adapter.rank={rank} is more than the width {narrow} of the layers it adapts.")


def adapted_layers(model: PreTrainedModel) -> dict[str, Any]:
    """peft's LoRA layers by name."""
    return layers_of(model, import_peft().tuners.lora.LoraLayer)


def merged(layer: Any, name: str, state: dict[str, Tensor]) -> Tensor:
    """The weight of a linear layer with its change in it, from the tensors of a state."""
    weight = state[f"{name}.base_layer.weight"]
    a, b = (state[f"{name}.lora_{part}.{ADAPTER}.weight"] for part in "AB")  # (rank, in), (out, rank)
    change: Tensor = layer.scaling[ADAPTER] * (b @ a)
    if layer.fan_in_fan_out:  # GPT-2's Conv1D keeps its weight the other way round
        change = change.T
    magnitude = state.get(f"{name}.lora_magnitude_vector.{ADAPTER}.weight")
    if magnitude is None:
        return weight + change
    changed = weight + change
    norm: Tensor = torch.linalg.norm(changed.T if layer.fan_in_fan_out else changed, dim=1)
    factor = magnitude / norm
    return changed * (factor if layer.fan_in_fan_out else factor[:, None])
