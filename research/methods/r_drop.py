"""R-Drop: two dropout masks for each example must agree.

Liang et al. 2021, R-Drop: Regularized Dropout for Neural Networks. The loss of a target is

    (CE(p1) + CE(p2)) / 2 + alpha (KL(p1 || p2) + KL(p2 || p1)) / 2

over its two distributions. (The paper adds the two cross entropies, which its alpha goes with: half of it is the same
here. Its code averages cross entropies over a batch and sums the divergences; here both are divided by the same number
of targets, so that alpha means the same for any batch.) Where a target has several distributions, such as the start and
the end of a span, both terms are their means. The two passes are one: each sequence stands twice in the packed row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from research.batching.repeat import twice
from research.config.key import at_least, key
from research.methods.divergence import COMPARES, symmetric_divergence
from research.methods.hooks import Loss, MethodHooks, Trained

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch


@dataclass
class Keys:
    alpha: float = key(1.0, "weight of the divergence; the paper's values for GLUE are 0.1 to 1", at_least(0))


class Method(MethodHooks):
    passes = 2.0
    copies = 2
    needs_target_logits = True
    claims = (COMPARES,)

    @property
    def is_off(self) -> bool:
        return bool(self.keys.alpha == 0)

    def pair(self, micro: MicroBatch) -> MicroBatch:
        """The two passes in one: all sequences, then all of them again."""
        return twice(micro)

    def loss(self, module: Trained, micro: MicroBatch, plain: Loss) -> tuple[Tensor, Any]:
        both = self.pair(micro)
        loss, outputs = plain(both)
        divergences = [symmetric_divergence(logits) for logits in module.target_logits(both, outputs)]
        return loss / 2 + self.keys.alpha * torch.stack(divergences).mean(), outputs
