"""The layers and the file format of peft, for the adapters that are its own; heads and poolers that it forgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from research.adapters.hooks import head_parameters
from research.common.errors import UserError
from research.models.dropout import swap_dropout

ADAPTER = "default"  # peft's name of an adapter
TASK_TYPES = {
    "SequenceClassification": "SEQ_CLS",
    "TokenClassification": "TOKEN_CLS",
    "QuestionAnswering": "QUESTION_ANS",
    "CausalLM": "CAUSAL_LM",
    "ConditionalGeneration": "SEQ_2_SEQ_LM",
}


def import_peft(name: str = "lora") -> Any:
    """peft, which only some adapters need. Raises UserError where it is not installed."""
    try:
        import peft
        import peft.tuners.adalora
        import peft.tuners.ia3
        import peft.tuners.lora
        import peft.tuners.tuners_utils
    except ImportError:
        raise UserError(f"adapter: {name} needs peft; install it with: pip install 'research[adapters]'.") from None
    return peft


def refuse_two_adapters(model: PreTrainedModel, name: str) -> None:
    """Raise UserError for a model that has an adapter already."""
    kind = import_peft(name).tuners.tuners_utils.BaseTunerLayer
    if any(isinstance(module, kind) for module in model.modules()):
        raise UserError(f"adapter: {name} cannot wrap a model that has an adapter already; start from its model/.")


def inject(model: PreTrainedModel, settings: Any) -> None:
    """Put peft's layers into a model, in place; head and poolers stay trained."""
    head = head_parameters(model)
    import_peft().inject_adapter_in_model(settings, model, ADAPTER)
    for p in head.values():
        p.requires_grad_(True)
    if not torch.cuda.is_available():
        swap_dropout(model)
    model._hf_peft_config_loaded = False  # save_pretrained writes the plain model


def layers_of(model: nn.Module, kind: type) -> dict[str, Any]:
    """peft's layers of one kind by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, kind)}


def without_adapter(state: dict[str, Tensor], layers: dict[str, Any], marks: tuple[str, ...]) -> dict[str, Tensor]:
    """The state under the plain architecture's names, without the tensors whose names hold a mark."""
    plain = {name: tensor for name, tensor in state.items() if not any(mark in name for mark in marks)}
    for name in layers:
        inner = f"{name}.base_layer."
        for old in [old for old in plain if old.startswith(inner)]:
            plain[f"{name}.{old.removeprefix(inner)}"] = plain.pop(old)
    return plain


def save(
    model: PreTrainedModel,
    own: dict[str, Tensor],
    state: dict[str, Tensor],
    settings: Any,
    base: str,
    revision: str | None,
    folder: Path,
) -> None:
    """Write what `PeftModel.from_pretrained` opens: the adapter's `own` tensors by their names in the model, with head
    and poolers from the state."""
    from safetensors.torch import save_file

    kept = {**own, **{name: state[name] for name in head_parameters(model)}}
    names = {f"base_model.model.{plain_name(name)}": tensor for name, tensor in kept.items()}
    save_file({k: v.detach().cpu().contiguous() for k, v in names.items()}, folder / "adapter_model.safetensors")
    kind = next((t for end, t in TASK_TYPES.items() if type(model).__name__.endswith(end)), None)
    settings.task_type, settings.inference_mode = kind, True
    settings.base_model_name_or_path, settings.revision = base, revision
    settings.modules_to_save = whole_modules(model)
    settings.save_pretrained(str(folder))


def plain_name(name: str) -> str:
    """peft's name of a tensor in a file: without the adapter's own."""
    if "lora_magnitude_vector" in name:
        return name.replace(f".{ADAPTER}.weight", "")
    return name.replace(f".{ADAPTER}.", ".")


def whole_modules(model: PreTrainedModel) -> list[str]:
    """The modules that are kept in full in the adapter's file: heads, poolers, and those with new weights."""
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
