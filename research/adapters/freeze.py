"""Freezing: the lowest layers, the embeddings, or weights by name stay as they were pretrained.

Lee, Tang and Lin 2019, What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning. `unfreeze_every_steps` thaws
the layers one by one from the highest down, after the head (Howard and Ruder 2018, Universal Language Model Fine-tuning
for Text Classification); what is below the layers stays frozen then.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from research.adapters.hooks import AdapterHooks, embedding_parameters, layer_stacks
from research.common.errors import UserError
from research.config.key import at_least, key


@dataclass
class Keys:
    layers: int = key(0, "lowest layers to freeze, and with them the embeddings", at_least(0, "layers"))
    embeddings: bool | None = key(None, "freeze all below the first layer; null: where layers are frozen")
    unfreeze_every_steps: int | None = key(
        None, "train the head alone at first, and a layer more after each so many steps; null: all at once", at_least(1)
    )
    names: list[str] = key([], "patterns of weights to freeze, as in ['*.LayerNorm.*']")


class Adapter(AdapterHooks):
    def apply(self, model: PreTrainedModel) -> str:
        """Raises UserError for more layers than there are, and for a pattern that no weight has."""
        frozen: dict[str, nn.Parameter] = {}
        depth = max(len(stack) for _, stack in layer_stacks(model))
        if self.keys.layers > depth:
            raise UserError(
                f"adapter.layers={self.keys.layers} is more than the {depth} layers of {type(model).__name__}."
            )
        every = self.keys.unfreeze_every_steps
        if every and self.keys.embeddings is False:
            raise UserError("adapter.unfreeze_every_steps keeps the embeddings frozen; leave adapter.embeddings out.")
        if every or self.keys.embeddings or (self.keys.embeddings is None and self.keys.layers):
            frozen |= embedding_parameters(model)
        for name, stack in layer_stacks(model):
            for i, layer in enumerate(stack[: self.keys.layers]):
                frozen |= {f"{name}.{i}.{inner}": p for inner, p in layer.named_parameters()}
        for pattern in self.keys.names:
            frozen |= named(model, pattern)
        if not frozen:
            raise UserError("adapter: freeze has nothing to freeze; give it layers, embeddings or names.")
        for p in frozen.values():
            p.requires_grad_(False)
        self.thawing: list[list[nn.Parameter]] = []  # of each layer from the highest down, what will be trained
        for depth_below in range(depth - self.keys.layers if every else 0):
            layers = [stack[-1 - depth_below] for _, stack in layer_stacks(model)]
            self.thawing.append([p for layer in layers for p in layer.parameters() if p.requires_grad])
        thaw = f", a layer more is trained every {every} steps" if every else ""
        return f"freeze: {len(frozen)} of {sum(1 for _ in model.parameters())} weight tensors frozen{thaw}"

    def before_step(self, model: PreTrainedModel, step: int) -> None:
        """Frozen within the step alone: the optimiser, the exchange and checkpoints know one set of weights."""
        for p in self._not_yet(step):
            p.requires_grad_(False)

    def after_step(self, model: PreTrainedModel, step: int, total_steps: int) -> None:
        for p in self._not_yet(step - 1):
            p.requires_grad_(True)

    def _not_yet(self, step: int) -> list[nn.Parameter]:
        """The weights of the layers that are frozen still; `step` counts from 0."""
        every = self.keys.unfreeze_every_steps
        return [p for layer in self.thawing[step // every :] for p in layer] if every else []


def named(model: nn.Module, pattern: str) -> dict[str, nn.Parameter]:
    """The weights whose name a pattern matches. Raises UserError where there are none."""
    found = {name: p for name, p in model.named_parameters() if fnmatch.fnmatchcase(name, pattern)}
    if not found:
        some = ", ".join([name for name, _ in model.named_parameters()][:: max(1, len(list(model.parameters())) // 4)])
        raise UserError(f"adapter.names: no weight matches '{pattern}'; names are such as {some}.")
    return found
