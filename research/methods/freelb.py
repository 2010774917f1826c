"""FreeLB: the mean of the losses that lie on the way to the worst text nearby.

Zhu et al. 2020, FreeLB: Enhanced Adversarial Training for Natural Language Understanding. For each example of n
embedded numbers, from d_0 drawn uniformly from [-epsilon, epsilon] / sqrt(n), `steps` times

    loss <- loss + L(x + d) / steps
    d    <- P(d + step_size g / |g|),  g the gradient of L at x + d,

P the projection to |d| <= epsilon, norms over all of its tokens. All steps have the same
dropout masks, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from research.config.key import at_least, key
from research.methods.embedded_tokens import MOVES, EmbeddedTokens, SameDropout, gradient, noise, sizes, unit, within
from research.methods.hooks import Loss, MethodHooks, Trained

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch

START = 1  # what its noise is for


@dataclass
class Keys:
    steps: int = key(3, "losses in the mean; the paper has 2 to 5", at_least(1, "step"))
    step_size: float = key(0.03, "length of a step, over all embedded tokens of an example", at_least(0))
    epsilon: float = key(0.1, "largest distance from the text", at_least(0))


class Method(MethodHooks):
    claims = (MOVES,)

    def __init__(self, keys: Any) -> None:
        super().__init__(keys)
        self.copies = keys.steps
        self.passes = 1.5 * keys.steps - 0.5  # a step, and the gradient of the embeddings for each but the last

    @property
    def is_off(self) -> bool:
        return bool(self.keys.epsilon == 0)

    def on_model(self, module: Trained) -> None:
        self.embedded = EmbeddedTokens(module)

    def loss(self, module: Trained, micro: MicroBatch, plain: Loss) -> tuple[Tensor, Any]:
        dropout, keys = SameDropout(micro), self.keys
        begun: list[Tensor] = []

        def start(read: Tensor) -> Tensor:
            drawn = noise(module, micro, read, START, uniform=True)
            begun.append(keys.epsilon * drawn / sizes(micro, read).sqrt())
            return read + begun[0].to(read)

        loss, outputs, read = self.embedded.loss(plain, micro, start)
        losses, [move] = [loss], begun
        for _ in range(keys.steps - 1):
            move = move + keys.step_size * unit(gradient(losses[-1], read, keep=True), micro)
            move = within(move, micro, keys.epsilon)
            dropout.again()
            loss, _, read = self.embedded.loss(plain, micro, move)
            losses.append(loss)
        return torch.stack(losses).mean(), outputs
