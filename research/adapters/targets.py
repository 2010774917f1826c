"""The linear layers of a model that an adapter changes, by their role in every architecture, or by name."""

from __future__ import annotations

import re

from transformers import PreTrainedModel

from research.adapters.hooks import head_parameters, layer_stacks
from research.common.errors import UserError

# role -> how architectures call the linear layer: the end of its dotted name
ROLES = {
    "q": r"(query|query_proj|q_proj|q_lin|SelfAttention\.q|EncDecAttention\.q|attn\.q|Wqkv|c_attn|in_proj)",
    "k": r"(key|key_proj|k_proj|k_lin|SelfAttention\.k|EncDecAttention\.k|attn\.k|Wqkv|c_attn|in_proj)",
    "v": r"(value|value_proj|v_proj|v_lin|SelfAttention\.v|EncDecAttention\.v|attn\.v|Wqkv|c_attn|in_proj)",
    "o": r"(attention\.(output\.)?dense|o_proj|out_proj|out_lin|\w*Attention\.o|attn\.(o|Wo|c_proj))",
    "up": r"(intermediate\.dense|lin1|fc1|up_proj|gate_proj|mlp\.Wi|wi|wi_0|wi_1|c_fc|ffn)",
    "down": r"((?<!attention\.)output\.dense|lin2|fc2|down_proj|mlp\.Wo|wo|mlp\.c_proj|ffn_output)",
}
LINEAR = ("Linear", "Conv1D")


def targets(model: PreTrainedModel, wanted: list[str], top_layers: int | None) -> list[str]:
    """Names of the linear layers of the base that the wanted roles or name ends mean.

    Raises UserError for one that hits nothing, with the names there are, and for more top layers than there are.
    """
    head = head_parameters(model)
    linear = {
        name: module
        for name, module in model.named_modules()
        if type(module).__name__ in LINEAR and f"{name}.weight" not in head
    }
    if top_layers is not None:
        depth = max((len(stack) for _, stack in layer_stacks(model)), default=0)
        if top_layers > depth:
            raise UserError(
                f"adapter.top_layers={top_layers} is more than the {depth} layers of {type(model).__name__}."
            )
        low = tuple(f"{name}.{i}." for name, stack in layer_stacks(model) for i in range(len(stack) - top_layers))
        linear = {name: module for name, module in linear.items() if not name.startswith(low)}
    hits: dict[str, None] = {}
    if not wanted:
        raise UserError(f"the adapter changes no layer: name some by their role ({', '.join(ROLES)}) or their name.")
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


def ends_of(names: list[str]) -> str:
    """What the names of layers end with, for a note."""
    return ", ".join(dict.fromkeys(re.sub(r".*\.\d+\.", "", name) for name in names))
