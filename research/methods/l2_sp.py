"""L2-SP: weights are drawn to where they were pretrained, not to zero.

Li, Grandvalet and Davoine 2018, Explicit Inductive Bias for Transfer Learning with Convolutional Networks. The loss of
a step gains

    alpha / 2 |w - w0|^2 + beta / 2 |v|^2

with w the trained weights that were pretrained, as w0, and v the others, such as a new head's. Its gradient is added
once a step, before clipping; the penalty is not divided by targets, so that it does not depend on the batch, and the
logged loss is without it. AdamW's decay to zero acts beside it: set optim.weight_decay=0 to compare.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from research.common.errors import UserError
from research.config.key import at_least, key
from research.methods.hooks import MethodHooks, Trained
from research.models.parameters import pretrained_parameters, trained_parameters


@dataclass
class Keys:
    alpha: float = key(0.01, "pull of pretrained weights to where they were", at_least(0))
    beta: float = key(0.01, "pull of new weights, such as those of the head, to zero", at_least(0))


class Method(MethodHooks):
    needs_dense_embedding = True  # the pull moves all rows at each step
    needs_unsharded_weights = True

    @property
    def is_off(self) -> bool:
        return bool(self.keys.alpha == 0 and self.keys.beta == 0)

    def on_model(self, module: Trained) -> None:
        pretrained = pretrained_parameters(module.backbone.model)
        if self.keys.alpha and not pretrained:
            name = module.config.adapter.name
            raise UserError(f"methods.l2_sp: adapter={name} trains no pretrained weight to hold; remove the method.")
        self.start = {name: p.detach().clone() for name, p in pretrained.items()}

    @torch.no_grad()
    def after_backward(self, module: Trained) -> None:
        for name, p in trained_parameters(module.backbone.model).items():
            if p.grad is None:
                continue
            if name in self.start:
                self.start[name] = self.start[name].to(p.device)
                p.grad.add_(p - self.start[name], alpha=self.keys.alpha)
            else:
                p.grad.add_(p, alpha=self.keys.beta)
