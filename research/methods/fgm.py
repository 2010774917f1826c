"""FGM: the loss at the text, and at the text whose embeddings are moved a step towards a larger loss.

Miyato, Dai and Goodfellow 2017, Adversarial Training Methods for Semi-Supervised Text Classification. The embedded
tokens of an example move by epsilon g / |g|, with g the gradient of its loss and the norm over all of its tokens, as in
the paper (a recipe that goes round norms the gradient of a batch's whole table: its steps depend on the batch). The two
losses add.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from research.config.key import at_least, key
from research.methods.embedded_tokens import MOVES, EmbeddedTokens, gradient, unit
from research.methods.hooks import Loss, MethodHooks, Trained

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch


@dataclass
class Keys:
    epsilon: float = key(0.1, "length of the step, over all embedded tokens of an example", at_least(0))


class Method(MethodHooks):
    passes = 2.5  # two of each, and the gradient of the embeddings
    copies = 2
    claims = (MOVES,)

    @property
    def is_off(self) -> bool:
        return bool(self.keys.epsilon == 0)

    def on_model(self, module: Trained) -> None:
        self.embedded = EmbeddedTokens(module)

    def loss(self, module: Trained, micro: MicroBatch, plain: Loss) -> tuple[Tensor, Any]:
        loss, outputs, read = self.embedded.loss(plain, micro)
        step = self.keys.epsilon * unit(gradient(loss, read, keep=True), micro)
        return loss + self.embedded.loss(plain, micro, step)[0], outputs
