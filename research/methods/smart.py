"""SMART: the text and the text nearby that is answered most differently must be answered alike.

Jiang et al. 2020, SMART: Robust and Efficient Fine-Tuning for Pre-trained Natural Language Models through Principled
Regularized Optimization; the smoothness-inducing part. The loss of a target is

    CE(f(x)) + strength D(f(x), f(x + d)),  D(p, q) = KL(p || q) + KL(q || p)

where for each example d_0 is normal noise of deviation sigma, and `steps` times

    d <- clamp(d + step_size g / |g|, -epsilon, epsilon),  g the gradient of D at x + d,

|g| the largest component over all of its tokens. All passes have the same dropout masks, so that D is of d alone. The
paper's epsilon of 1e-5 is below the rounding of bf16: the default lets one step through. (Its second part, the Bregman
step towards averaged weights, is not here.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from research.config.key import above, at_least, key
from research.methods.divergence import COMPARES, both_ways
from research.methods.embedded import MOVES, EmbeddedTokens, SameDropout, gradient, noise, unit
from research.methods.hooks import Loss, MethodHooks, Trained

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch

START = 2  # what its noise is for


@dataclass
class Keys:
    strength: float = key(1.0, "weight of the divergence", at_least(0))
    epsilon: float = key(1e-3, "largest change of an embedded number", above(0))
    sigma: float = key(1e-5, "deviation of the noise the search starts at", above(0))
    step_size: float = key(1e-3, "largest component of a step", above(0))
    steps: int = key(1, "steps towards a larger divergence", at_least(1, "step"))


class Method(MethodHooks):
    copies = 2
    claims = (MOVES, COMPARES)

    def __init__(self, keys: Any) -> None:
        super().__init__(keys)
        self.passes = 2.0 + 0.8 * keys.steps

    @property
    def is_off(self) -> bool:
        return bool(self.keys.strength == 0)

    def on_model(self, module: Trained) -> None:
        self.embedded = EmbeddedTokens(module)

    def loss(self, module: Trained, micro: MicroBatch, plain: Loss) -> tuple[Tensor, Any]:
        dropout, keys = SameDropout(micro), self.keys
        loss, outputs, read = self.embedded.loss(plain, micro)
        clean = module.target_logits(micro, outputs)
        fixed = [logits.detach() for logits in clean]
        move = keys.sigma * noise(module, micro, read, START)
        for _ in range(keys.steps):
            dropout.again()
            _, others, read = self.embedded.loss(plain, micro, move)
            uphill = gradient(both_ways(fixed, module.target_logits(micro, others)), read)
            move = (move + keys.step_size * unit(uphill, micro, math.inf)).clamp(-keys.epsilon, keys.epsilon)
        dropout.again()
        _, others, _ = self.embedded.loss(plain, micro, move)
        return loss + keys.strength * both_ways(clean, module.target_logits(micro, others)), outputs
