"""What an adapter may do, and the parts of a model it speaks of: head, layers, embeddings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedModel


class AdapterHooks:
    """An adapter decides which weights are trained; it may add some. By default it changes nothing."""

    def __init__(self, keys: Any) -> None:
        """`keys` are the adapter's section of the config."""
        self.keys = keys

    def apply(self, model: PreTrainedModel) -> str | None:
        """Freeze or add weights, in place, before the model is fed. Returns a note for the user.

        Raises UserError where the keys mean nothing for this model.
        """
        return None

    def plain_state(self, model: PreTrainedModel, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state of the adapted model as one of the plain architecture, which `from_pretrained` reads."""
        return state

    acts_by_length: ClassVar[bool] = False  # does what it does at a step depend on how long the run is?
    has_own_file: ClassVar[bool] = False
    shards: ClassVar[bool] = True  # does it go with trainer.strategy=fsdp?
    merges: ClassVar[bool] = True  # is the adapted model one of the plain architecture?

    def learning_rate(self, name: str) -> float:
        """The factor of a weight's learning rate, by its name in the model."""
        return 1.0

    def before_step(self, model: PreTrainedModel, step: int) -> None:
        """Once a step, before the first forward pass; `step` counts from 0."""

    def after_backward(self, model: PreTrainedModel) -> None:
        """Once a step, after the ranks exchanged gradients, before clipping: change each `p.grad` in place."""

    def after_step(self, model: PreTrainedModel, step: int, total_steps: int) -> None:
        """Once a step, when the weights have been updated; `step` counts from 1."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold of the adapter beside its trained weights."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""

    def feed(self, backbone: Any, longest: int) -> None:
        """Once, when the model can be fed: change what it is fed. `longest`: the most tokens of a sequence.

        Raises UserError where that cannot be.
        """

    def export(
        self, model: PreTrainedModel, state: dict[str, Tensor], base: str, revision: str | None, folder: Path
    ) -> None:
        """Write what the adapter alone is to an empty folder; `base` is the model it was trained on."""


def head_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """By name, the weights that belong to the task: outside the pretrained base, poolers, and whatever is new.

    A pooler counts, pretrained or not: a checkpoint may come without one, and a frozen random one would be another at
    each start.
    """
    base = f"{model.base_model_prefix}."
    is_base = model.base_model is model
    new: frozenset[str] = getattr(model, "new_weights", frozenset())
    return {
        name: p
        for name, p in model.named_parameters()
        if name in new or "pooler" in name.split(".") or not (is_base or name.startswith(base))
    }


def layer_stacks(model: PreTrainedModel) -> list[tuple[str, nn.ModuleList]]:
    """The stacks of layers of a model, with their names: one, or an encoder's and a decoder's."""
    lists = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.ModuleList)]
    outer = [(name, m) for name, m in lists if not any(name.startswith(f"{other}.") for other, _ in lists)]
    longest = max((len(m) for _, m in outer), default=0)
    return [(name, m) for name, m in outer if len(m) == longest]


def embedding_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """By name, the weights below the first layer."""
    stacks, found = layer_stacks(model), {}
    for name, p in model.named_parameters():
        if any(name.startswith(f"{stack}.") for stack, _ in stacks):
            break
        found[name] = p
    return found


def train_only(model: nn.Module, trained: Iterable[nn.Parameter]) -> None:
    """Freeze all weights but these."""
    kept = {id(p) for p in trained}
    for p in model.parameters():
        p.requires_grad_(id(p) in kept)
