"""What the adapters share that put trained vectors in front of each sequence.

Shapes: P vectors, W width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from research.adapters.hooks import AdapterHooks, head_parameters, train_only
from research.adapters.peft_layers import TASK_TYPES, import_peft, whole_modules
from research.common.errors import UserError
from research.models.load import usable_positions
from research.models.prompted import embed_prompt

if TYPE_CHECKING:
    from research.models.backbone import Backbone


class PromptRows(AdapterHooks):
    """An adapter whose `tokens` vectors stand in front of each sequence."""

    peft_type: ClassVar[str]

    def feed(self, backbone: Any, longest: int) -> None:
        feed_prompt(backbone, self.keys.tokens, longest)

    def plain_state(self, model: PreTrainedModel, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return without_prompt(state)

    def export(
        self, model: PreTrainedModel, state: dict[str, Tensor], base: str, revision: str | None, folder: Path
    ) -> None:
        """What `PeftModel.from_pretrained` opens: the vectors as they are fed, with head and poolers."""
        save_prompt(self.peft_type, prompt_of(model), model, state, base, revision, folder)


def input_table(model: PreTrainedModel) -> Any:
    """The embedding of the words of a model, or of an encoder-decoder's source."""
    return (model.get_encoder() if model.config.is_encoder_decoder else model).get_input_embeddings()


def add_prompt(model: PreTrainedModel, make: Callable[[Tensor], nn.Module]) -> None:
    """Freeze all but head and poolers, and add the prompt that `make` makes from the words' table.

    Raises UserError for a model that has a prompt already.
    """
    table = input_table(model)
    if hasattr(table, "prompt"):
        raise UserError("adapter: a prompt cannot be put before a model that has a prompt already.")
    train_only(model, head_parameters(model).values())
    embed_prompt(table, make(table.weight.detach()), table.num_embeddings)


def refuse_too_long(model: PreTrainedModel, P: int, longest: int) -> None:
    """Raise UserError where the positions of the model do not suffice for P tokens and a sequence of the longest."""
    usable = usable_positions(model.config)
    if usable and longest + P > usable:
        raise UserError(
            f"adapter.tokens={P} before sequences of up to {longest} tokens need {longest + P} positions, and the "
            f"model has {usable}; lower data.max_length or adapter.tokens by {longest + P - usable}."
        )


def feed_prompt(backbone: Backbone, P: int, longest: int) -> None:
    """Have P ids of the prompt put in front of each sequence. Raises UserError where positions do not suffice."""
    refuse_too_long(backbone.model, P, longest)
    backbone.prompt_tokens, backbone.words = P, input_table(backbone.model).num_embeddings


def prompt_of(model: PreTrainedModel) -> Tensor:
    """The vectors as they are fed, (P, W)."""
    with torch.no_grad():
        rows: Tensor = input_table(model).prompt()
    return rows


def without_prompt(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not is_own(name)}


def save_prompt(
    peft_type: str,
    rows: Tensor,
    model: PreTrainedModel,
    state: dict[str, Tensor],
    base: str,
    revision: str | None,
    folder: Path,
) -> None:
    """Write what `PeftModel.from_pretrained` opens: a prompt's `rows`, (P, W), or a prefix's, (P, layers * 2 * W), with
    head and poolers."""
    from safetensors.torch import save_file

    peft, plain = import_peft("prompt"), {name for name in state if not is_own(name)}
    tensors = {f"base_model.{name}": state[name] for name in head_parameters(model) if name in plain}
    tensors["prompt_embeddings"] = rows
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, folder / "adapter_model.safetensors")
    P, W = rows.shape
    shape = {"token_dim": W, "num_layers": 1, "num_attention_heads": 1}
    if peft_type == "PREFIX_TUNING":
        own: Any = model.config
        shape = {"token_dim": own.hidden_size, "num_layers": own.num_hidden_layers,
                 "num_attention_heads": own.num_attention_heads}  # fmt: skip
    kinds = {"PROMPT_TUNING": peft.PromptTuningConfig, "P_TUNING": peft.PromptEncoderConfig,
             "PREFIX_TUNING": peft.PrefixTuningConfig}  # fmt: skip
    settings = kinds[peft_type](num_virtual_tokens=P, num_transformer_submodules=1, inference_mode=True, **shape)
    settings.task_type = next((t for end, t in TASK_TYPES.items() if type(model).__name__.endswith(end)), None)
    settings.base_model_name_or_path, settings.revision = base, revision
    settings.modules_to_save = whole_modules(model)
    settings.save_pretrained(str(folder))


def is_own(name: str) -> bool:
    """Is it a tensor of a prompt or a prefix?"""
    return ".prompt." in name or ".trained_prefix." in name
