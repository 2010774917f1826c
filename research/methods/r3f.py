"""R3F: the text and the text under tiny noise must be answered alike.

Aghajanyan et al. 2021, Better Fine-Tuning by Reducing Representational Collapse. The loss of a target is

    CE(f(x)) + strength (KL(f(x) || f(x + z)) + KL(f(x + z) || f(x)))

with z normal, or uniform, noise of size sigma on the embedded tokens, drawn from (seed, step, example). As in the
authors' code, the second pass has dropout masks of its own: sigma of 1e-5 is below the rounding of bf16, so that with
dropout most of what is compared is its masks, as in R-Drop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from research.config.key import above, at_least, key
from research.methods.divergence import COMPARES, both_ways
from research.methods.embedded_tokens import MOVES, EmbeddedTokens, noise
from research.methods.hooks import Loss, MethodHooks, Trained

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch

NOISE = 3  # what its noise is for


@dataclass
class Keys:
    strength: float = key(1.0, "weight of the divergence; the paper has 0.1 to 5", at_least(0))
    sigma: float = key(1e-5, "deviation of the normal noise, or half the width of the uniform", above(0))
    noise: Literal["normal", "uniform"] = key("normal", "how it is distributed")


class Method(MethodHooks):
    passes = 2.0
    copies = 2
    needs_target_logits = True
    claims = (MOVES, COMPARES)

    @property
    def is_off(self) -> bool:
        return bool(self.keys.strength == 0)

    def on_model(self, module: Trained) -> None:
        self.embedded = EmbeddedTokens(module)

    def loss(self, module: Trained, micro: MicroBatch, plain: Loss) -> tuple[Tensor, Any]:
        def noisy(read: Tensor) -> Tensor:
            z = noise(module, micro, read, NOISE, uniform=self.keys.noise == "uniform")
            return read.add(z.to(read), alpha=self.keys.sigma)

        loss, outputs = plain(micro)
        _, others, _ = self.embedded.loss(plain, micro, noisy)
        divergence = both_ways(module.target_logits(micro, outputs), module.target_logits(micro, others))
        return loss + self.keys.strength * divergence, outputs
