"""PGD: the loss at the text, and at the worst text that a few steps find near it.

Madry et al. 2018, Towards Deep Learning Models Resistant to Adversarial Attacks, on embedded tokens as FGM has it. From
d_0 = 0, for each example, `steps` times

    d <- P(d + step_size g / |g|),  g the gradient of the example's loss at x + d,

P the projection to |d| <= epsilon, norms over all of its tokens. The losses at x and at the last x + d add.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from research.config.key import above, at_least, key
from research.methods.embedded_tokens import MOVES, EmbeddedTokens, gradient, unit, within
from research.methods.hooks import Loss, MethodHooks, Trained

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch


@dataclass
class Keys:
    steps: int = key(3, "steps towards a larger loss", at_least(1, "step"))
    step_size: float = key(0.05, "length of a step, over all embedded tokens of an example", above(0))
    epsilon: float = key(0.1, "largest distance from the text", at_least(0))


class Method(MethodHooks):
    copies = 2  # passes between the first and the last one keep nothing
    claims = (MOVES,)

    def __init__(self, keys: Any) -> None:
        super().__init__(keys)
        self.passes = 2.5 + 0.8 * (keys.steps - 1)

    @property
    def is_off(self) -> bool:
        return bool(self.keys.epsilon == 0)

    def on_model(self, module: Trained) -> None:
        self.embedded = EmbeddedTokens(module)

    def loss(self, module: Trained, micro: MicroBatch, plain: Loss) -> tuple[Tensor, Any]:
        clean, outputs, read = self.embedded.loss(plain, micro)
        uphill = gradient(clean, read, keep=True)
        move = within(self.keys.step_size * unit(uphill, micro), micro, self.keys.epsilon)
        for _ in range(self.keys.steps - 1):
            loss, _, read = self.embedded.loss(plain, micro, move)
            move = move + self.keys.step_size * unit(gradient(loss, read), micro)
            move = within(move, micro, self.keys.epsilon)
        return clean + self.embedded.loss(plain, micro, move)[0], outputs
