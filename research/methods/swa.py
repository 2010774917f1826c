"""Stochastic weight averaging: the mean of the weights late in training is evaluated and exported.

Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization. From the step at which `start`
of training is done, every `every_steps` steps,

    n <- n + 1,  average <- average + (w - average) / n

Training continues with the raw weights w; before the first average they are evaluated. The paper's rate is constant or
cyclic while it averages: optim.schedule=constant. (Encoders have no batch norm, whose statistics it computes again.)
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from research.config.key import at_least, inside, key
from research.methods.hooks import MethodHooks, Trained, with_weights
from research.models.parameters import trained_parameters

COUNT = "count"  # of the weights in the average; no weight of a model has a name without a dot


@dataclass
class Keys:
    start: float = key(0.75, "share of training before the first average; 1: never averaged", inside("[0, 1]"))
    every_steps: int = key(10, "steps from one average to the next", at_least(1, "step"))


class Method(MethodHooks):
    acts_by_length = True  # begins after a share of it
    needs_dense_embedding = True  # an average moves all rows
    needs_unsharded_weights = True
    claims = ("chooses the weights that are scored",)

    @property
    def is_off(self) -> bool:
        return bool(self.keys.start == 1)

    def on_model(self, module: Trained) -> None:
        self.averages: dict[str, Tensor] = {}
        self.count = 0

    @torch.no_grad()
    def after_step(self, module: Trained) -> None:
        since = module.step + 1 - max(1, math.ceil(self.keys.start * module.total_steps))
        if since < 0 or since % self.keys.every_steps:
            return
        self.count += 1
        for name, p in trained_parameters(module.backbone.model).items():
            if self.count == 1:
                self.averages[name] = p.detach().clone()
            else:
                self.averages[name] = self.averages[name].to(p.device).lerp_(p.detach(), 1 / self.count)

    def at_evaluation(self, module: Trained) -> AbstractContextManager[None]:
        return with_weights(trained_parameters(module.backbone.model), self.averages)

    def state(self) -> dict[str, Tensor]:
        return {**self.averages, COUNT: torch.tensor(self.count)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.count = int(state.get(COUNT, torch.tensor(0)))
        self.averages = {name: tensor.clone() for name, tensor in state.items() if name != COUNT}
