"""Exponential moving average of the weights: it is evaluated and exported, training continues with the raw ones.

Polyak and Juditsky 1992, Acceleration of Stochastic Approximation by Averaging. After step t (from 1) the average moves
to d e + (1 - d) w with d = min(decay, (1 + t) / (10 + t)), so that it forgets where it began.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from research.config.key import inside, key
from research.methods.hooks import MethodHooks, Trained, with_weights
from research.models.parameters import trained_parameters


@dataclass
class Keys:
    decay: float = key(0.999, "weight of the average so far at each step", inside("[0, 1)"))


class Method(MethodHooks):
    needs_dense_embedding = True  # an average moves all rows at each step
    needs_unsharded_weights = True
    claims = ("chooses the weights that are scored",)

    @property
    def is_off(self) -> bool:
        return bool(self.keys.decay == 0)

    def on_model(self, module: Trained) -> None:
        self.averages = {name: p.detach().clone() for name, p in trained_parameters(module.backbone.model).items()}

    @torch.no_grad()
    def after_step(self, module: Trained) -> None:
        t = module.step + 1
        decay = min(self.keys.decay, (1 + t) / (10 + t))
        weights = trained_parameters(module.backbone.model)
        own = [self.averages[name].to(p.device) for name, p in weights.items()]
        torch._foreach_lerp_(own, [p.detach() for p in weights.values()], 1 - decay)
        self.averages = dict(zip(weights, own, strict=True))

    def at_evaluation(self, module: Trained) -> AbstractContextManager[None]:
        return with_weights(trained_parameters(module.backbone.model), self.averages)

    def state(self) -> dict[str, Tensor]:
        return self.averages

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.averages = {name: tensor.clone() for name, tensor in state.items()}
