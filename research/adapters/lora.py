"""LoRA: a low-rank change beside chosen linear layers is trained, W + (alpha / rank) B A; the rest is frozen.

Hu et al. 2022, LoRA: Low-Rank Adaptation of Large Language Models. `dora` trains the norms of the columns apart
(Liu et al. 2024), `rslora` divides by the root of the rank (Kalajdzievski 2023). The layers and the file format are
peft's; head and poolers are trained whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from research.adapters.hooks import AdapterHooks, head_parameters, layer_stacks
from research.common.errors import UserError
from research.config.key import above, at_least, inside, key
from research.models.dropout import swap_dropout

# role -> how architectures call the linear layer: the end of its dotted name
ROLES = {
    "q": r"(query|query_proj|q_proj|q_lin|SelfAttention\.q|EncDecAttention\.q|attn\.q|Wqkv|c_attn|in_proj)",
    "k": r"(key|key_proj|k_proj|k_lin|SelfAttention\.k|EncDecAttention\.k|attn\.k|Wqkv|c_attn|in_proj)",
    "v": r"(value|value_proj|v_proj|v_lin|SelfAttention\.v|EncDecAttention\.v|attn\.v|Wqkv|c_attn|in_proj)",
    "o": r"(attention\.(output\.)?dense|o_proj|out_proj|out_lin|\w*Attention\.o|attn\.(o|Wo|c_proj))",
    "up": r"(intermediate\.dense|lin1|fc1|up_proj|gate_proj|mlp\.Wi|wi|wi_0|wi_1|c_fc|ffn)",
    "down": r"((?<!attention\.)output\.dense|lin2|fc2|down_proj|mlp\.Wo|wo|mlp\.c_proj|ffn_output)",
}
LINEAR = ("Linear", "Conv1D")  # what LoRA stands beside
ADAPTER = "default"  # peft's name of an adapter
TASK_TYPES = {
    "SequenceClassification": "SEQ_CLS",
    "TokenClassification": "TOKEN_CLS",
    "QuestionAnswering": "QUESTION_ANS",
    "CausalLM": "CAUSAL_LM",
    "ConditionalGeneration": "SEQ_2_SEQ_LM",
}


@dataclass
class Keys:
    rank: int = key(8, "rank of the change", at_least(1))
    alpha: float = key(16.0, "scale of the change: alpha / rank", above(0))
    dropout: float = key(0.0, "of the change's input", inside("[0, 1)"))
    targets: list[str] = key(["q", "v"], f"linear layers by role ({', '.join(ROLES)}) or by the end of their names")
    top_layers: int | None = key(None, "adapt so many of the highest layers; null: all", at_least(1))
    rslora: bool = key(False, "scale by alpha / root of the rank")
    dora: bool = key(False, "train the norms of the weight's columns apart")


class Adapter(AdapterHooks):
    has_own_file = True

    def apply(self, model: PreTrainedModel) -> str:
        """Raises UserError without peft, for a model that has an adapter, and for a target that hits nothing."""
        peft = import_peft()
        if any(isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer) for module in model.modules()):
            raise UserError("adapter: lora cannot wrap a model that has an adapter already; start from its model/.")
        hits = targets(model, self.keys.targets, self.keys.top_layers)
        narrow = min(min(model.get_submodule(name).weight.shape) for name in hits)  # type: ignore[arg-type]
        if self.keys.rank > narrow:
            raise UserError(f"adapter.rank={self.keys.rank} is more than the width {narrow} of the layers it adapts.")
        head = head_parameters(model)
        peft.inject_adapter_in_model(self._settings(peft, hits), model, ADAPTER)
        for p in head.values():
            p.requires_grad_(True)
        if not torch.cuda.is_available():
            swap_dropout(model)
        model._hf_peft_config_loaded = False  # save_pretrained writes the plain model
        ends = dict.fromkeys(re.sub(r".*\.\d+\.", "", name) for name in hits)
        return f"lora: rank {self.keys.rank} beside {len(hits)} linear layers ({', '.join(ends)})"

    def _settings(self, peft: Any, hits: list[str]) -> Any:
        k = self.keys
        return peft.LoraConfig(
            r=k.rank, lora_alpha=k.alpha, lora_dropout=k.dropout, target_modules=list(hits), use_rslora=k.rslora,
            use_dora=k.dora,
        )  # fmt: skip

    def plain_state(self, model: PreTrainedModel, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The adapted weights merged, in their own precision."""
        plain = {name: tensor for name, tensor in state.items() if ".lora_" not in name}
        for name, layer in adapted_layers(model).items():
            inner = f"{name}.base_layer."
            for old in [old for old in plain if old.startswith(inner)]:
                plain[f"{name}.{old.removeprefix(inner)}"] = plain.pop(old)
            plain[f"{name}.weight"] = merged(layer, name, state)
        return {name: plain[name] for name in sorted(plain)}

    def export(
        self, model: PreTrainedModel, state: dict[str, Tensor], base: str, revision: str | None, folder: Path
    ) -> None:
        """What `PeftModel.from_pretrained` opens: the low-rank weights, with head and poolers."""
        from safetensors.torch import save_file

        peft = import_peft()
        kept = {name: state[name] for name in state if ".lora_" in name or name in head_parameters(model)}
        names = {f"base_model.model.{plain_name(name)}": tensor for name, tensor in kept.items()}
        save_file({k: v.detach().cpu().contiguous() for k, v in names.items()}, folder / "adapter_model.safetensors")
        settings = self._settings(peft, list(adapted_layers(model)))
        kind = next((t for end, t in TASK_TYPES.items() if type(model).__name__.endswith(end)), None)
        settings.task_type, settings.inference_mode = kind, True
        settings.base_model_name_or_path, settings.revision = base, revision
        settings.modules_to_save = whole_modules(model)
        settings.save_pretrained(str(folder))


def import_peft() -> Any:
    """peft, which only some adapters need. Raises UserError where it is not installed."""
    try:
        import peft
        import peft.tuners.lora
        import peft.tuners.tuners_utils
    except ImportError:
        raise UserError("adapter: lora needs peft; install it with: pip install 'research[adapters]'.") from None
    return peft


def targets(model: PreTrainedModel, wanted: list[str], top_layers: int | None) -> list[str]:
    """Names of the linear layers of the base that the wanted roles or name ends mean.

    Raises UserError for one that hits nothing, with the names there are.
    """
    head = head_parameters(model)
    linear = {
        name: module
        for name, module in model.named_modules()
        if type(module).__name__ in LINEAR and f"{name}.weight" not in head
    }
    if top_layers is not None:
        low = tuple(f"{name}.{i}." for name, stack in layer_stacks(model) for i in range(len(stack) - top_layers))
        linear = {name: module for name, module in linear.items() if not name.startswith(low)}
    hits: dict[str, None] = {}
    for target in wanted:
        end = ROLES.get(target, re.escape(target))
        found = [name for name in linear if re.search(rf"(^|\.){end}$", name)]
        if not found:
            ends = dict.fromkeys(re.sub(r".*\.\d+\.", "", name) for name in linear)
            raise UserError(
                f"adapter.targets: '{target}' hits no linear layer of {type(model).__name__}; roles are "
                f"{', '.join(ROLES)}, its layers are {', '.join(ends)}."
            )
        hits |= dict.fromkeys(found)
    return list(hits)


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """peft's LoRA layers by name."""
    kind = import_peft().tuners.lora.LoraLayer
    return {name: module for name, module in model.named_modules() if isinstance(module, kind)}


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


def plain_name(name: str) -> str:
    """peft's name of a tensor in a file: without the adapter's own."""
    if "lora_magnitude_vector" in name:
        return name.replace(f".{ADAPTER}.weight", "")
    return name.replace(f".{ADAPTER}.", ".")


def whole_modules(model: PreTrainedModel) -> list[str]:
    """The modules that stand whole in the adapter's file: heads, poolers, and those with new weights."""
    base = f"{model.base_model_prefix}."
    found: dict[str, None] = {}
    for name in head_parameters(model):
        parts = name.split(".")
        if "pooler" in parts:
            found[".".join(parts[: parts.index("pooler") + 1])] = None
        elif not name.startswith(base):
            found[parts[0]] = None
        else:
            found[name.rpartition(".")[0]] = None
    return list(found)
