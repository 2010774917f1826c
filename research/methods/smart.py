"""SMART: the text and the text nearby that is answered most differently must be answered alike.

Jiang et al. 2020, SMART: Robust and Efficient Fine-Tuning for Pre-trained Natural Language Models through Principled
Regularized Optimization. The loss of a target is

    CE(f(x)) + strength D(f(x), f(x + d)) + bregman D(f(x), g(x)),  D(p, q) = KL(p || q) + KL(q || p)

The last term is the momentum Bregman proximal point: g has averaged weights, which begin as the pretrained ones and
after each step move to momentum g + (1 - momentum) f. It is computed without a gradient. In the term before, for each
example d_0 is normal noise of deviation sigma, and `steps` times

    d <- clamp(d + step_size g / |g|, -epsilon, epsilon),  g the gradient of D at x + d,

|g| the largest component over all of its tokens. All passes have the same dropout masks, so that D is of d, or of the
weights, alone. The paper's epsilon of 1e-5 is below the rounding of bf16: the default lets one step through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from research.config.key import above, at_least, inside, key
from research.methods.divergence import COMPARES, both_ways
from research.methods.embedded_tokens import MOVES, EmbeddedTokens, SameDropout, gradient, noise, unit
from research.methods.hooks import Loss, MethodHooks, Trained, with_weights
from research.models.parameters import trained_parameters

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
    bregman: float = key(0.0, "weight of the divergence from averaged weights; the paper's is 1", at_least(0))
    momentum: float = key(0.99, "weight of the average so far at each step", inside("[0, 1)"))


class Method(MethodHooks):
    copies = 2
    needs_target_logits = True
    claims = (MOVES, COMPARES)

    def __init__(self, keys: Any) -> None:
        super().__init__(keys)
        self.passes = 1.0 + (1.0 + 0.8 * keys.steps if keys.strength else 0.0) + (0.4 if keys.bregman else 0.0)
        self.needs_dense_embedding = self.needs_unsharded_weights = keys.bregman > 0  # an average moves all rows

    @property
    def is_off(self) -> bool:
        return bool(self.keys.strength == 0 and self.keys.bregman == 0)

    def on_model(self, module: Trained) -> None:
        self.embedded = EmbeddedTokens(module)
        weights = trained_parameters(module.backbone.model) if self.keys.bregman else {}
        self.averages = {name: p.detach().clone() for name, p in weights.items()}

    def loss(self, module: Trained, micro: MicroBatch, plain: Loss) -> tuple[Tensor, Any]:
        dropout, keys = SameDropout(micro), self.keys
        loss, outputs, read = self.embedded.loss(plain, micro)
        clean = module.target_logits(micro, outputs)
        if keys.bregman:
            dropout.again()
            with torch.no_grad(), with_weights(trained_parameters(module.backbone.model), self.averages):
                averaged = module.target_logits(micro, plain(micro)[1])
            loss = loss + keys.bregman * both_ways(clean, averaged)
        if not keys.strength:
            return loss, outputs
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

    @torch.no_grad()
    def after_step(self, module: Trained) -> None:
        for name, p in trained_parameters(module.backbone.model).items() if self.averages else ():
            self.averages[name] = self.averages[name].to(p.device).lerp_(p.detach(), 1 - self.keys.momentum)

    def state(self) -> dict[str, Tensor]:
        return self.averages

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.averages = {name: tensor.clone() for name, tensor in state.items()}
