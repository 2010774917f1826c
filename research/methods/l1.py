"""L1 penalty: the loss of a step gains strength times the sum of |w|, which drives weights that matter little to zero.

Tibshirani 1996, Regression Shrinkage and Selection via the Lasso. The gradient gains

    strength sign(w)

once a step, before clipping, for weights of more than one axis (as with weight decay, not for biases and norms). The
penalty is not divided by targets, so that it does not depend on the batch; the logged loss is without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from research.config.key import at_least, key
from research.methods.hooks import MethodHooks, Trained
from research.models.parameters import trained_parameters


@dataclass
class Keys:
    strength: float = key(1e-6, "factor of the sum of absolute weights", at_least(0))


class Method(MethodHooks):
    needs_dense_embedding = True  # the penalty moves all rows at each step
    needs_unsharded_weights = True

    @property
    def is_off(self) -> bool:
        return bool(self.keys.strength == 0)

    @torch.no_grad()
    def after_backward(self, module: Trained) -> None:
        for p in trained_parameters(module.backbone.model).values():
            if p.grad is not None and p.ndim > 1:
                p.grad.add_(p.sign(), alpha=self.keys.strength)
