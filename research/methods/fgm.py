"""FGM: the loss at the text, and at the text whose embeddings are moved a step towards a larger loss.

Miyato, Dai and Goodfellow 2017, Adversarial Training Methods for Semi-Supervised Text Classification. The embedded
tokens of an example move by epsilon g / |g|, with g the gradient of its loss and the norm over all of its tokens, as in
the paper (a recipe that goes round norms the gradient of a batch's whole table: its steps depend on the batch). The two
losses add.

Shapes: T tokens of the row with its filler, N sequences, L longest sequence, E examples, H width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from research.config.key import at_least, key
from research.methods.hooks import Loss, MethodHooks, Trained

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch


@dataclass
class Keys:
    epsilon: float = key(1.0, "length of the step, over all embedded tokens of an example", at_least(0))


class Method(MethodHooks):
    passes = 2.5  # two of each, and the gradient of the embeddings
    copies = 2

    @property
    def is_off(self) -> bool:
        return bool(self.keys.epsilon == 0)

    def on_model(self, module: Trained) -> None:
        self.embedded: Tensor | None = None
        self.step: Tensor | None = None
        module.backbone.model.get_input_embeddings().register_forward_hook(self._move)

    def loss(self, module: Trained, micro: MicroBatch, plain: Loss) -> tuple[Tensor, Any]:
        self.embedded = torch.empty(0)  # asks the hook for them
        try:
            loss, outputs = plain(micro)
            (gradient,) = torch.autograd.grad(loss, self.embedded, retain_graph=True)
            self.embedded, self.step = None, self.keys.epsilon * unit(gradient, micro)
            return loss + plain(micro)[0], outputs
        finally:
            self.embedded = self.step = None

    def _move(self, embedding: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """Of the first stream alone: the embedding is asked for it first."""
        if self.step is not None:
            step, self.step = self.step, None
            return output + step.to(output)
        if self.embedded is not None and not self.embedded.numel():
            self.embedded = output = output if output.requires_grad else output.detach().requires_grad_()
        return output


def unit(gradient: Tensor, micro: MicroBatch) -> Tensor:
    """The gradient of each example, (1, T, H) or (N, L, H), divided by its norm; 0 where that is 0."""
    examples, sequence = np.unique(micro.examples, return_inverse=True)  # (E,), (N,)
    owner = torch.from_numpy(sequence).to(gradient.device)
    if micro.first.layout is not None:
        lengths = torch.from_numpy(micro.lengths).to(gradient.device)
        owner = owner.repeat_interleave(lengths)
        filler = gradient.shape[1] - len(owner)
        owner = torch.cat([owner, owner.new_full((filler,), len(examples))])  # an example of its own
        flat = gradient[0].float()  # (T, H)
    else:
        flat = gradient.float().flatten(1)  # (N, L H)
    squares = flat.new_zeros(len(examples) + 1).index_add_(0, owner, flat.square().sum(1))
    norms = squares.sqrt()[owner]
    scaled = flat / norms.clamp(min=1e-30)[:, None]
    return scaled.view(gradient.shape).to(gradient.dtype)
