"""Mixout: in each step a random share of the weights stands where it was pretrained.

Lee, Cho and Kang 2020, Mixout: Effective Regularization to Finetune Large-scale Pretrained Language Models. A step is
computed with

    W' = u                       where the mask is 1, with probability p
    W' = u + (w - u) / (1 - p)   elsewhere

in the place of w, u the pretrained weights: the mean of W' is w. As in the authors' code, for the pretrained matrices
of linear layers; w itself is evaluated and exported. A mask is drawn once a step, from (seed, step, name), so that all
micro-batches and ranks have the same. The authors switch dropout off beside it: model.dropout=0.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from research.common.errors import UserError
from research.config.key import inside, key
from research.methods.hooks import MethodHooks, Trained, with_weights
from research.models.parameters import pretrained_parameters


@dataclass
class Keys:
    p: float = key(0.7, "probability that a weight stands where it was pretrained; 0.7 to 0.9 are usual",
                   inside("[0, 1)"))  # fmt: skip


class Method(MethodHooks):
    needs_unsharded_weights = True

    @property
    def is_off(self) -> bool:
        return bool(self.keys.p == 0)

    def on_model(self, module: Trained) -> None:
        model = module.backbone.model
        linear = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Linear)}
        self.weights = {name: p for name, p in pretrained_parameters(model).items() if id(p) in linear}
        if not self.weights:
            name = module.config.adapter.name
            raise UserError(f"methods.mixout: adapter={name} trains no pretrained matrix to mix; remove the method.")
        self.start = {name: p.detach().clone() for name, p in self.weights.items()}

    @contextmanager
    def at_step(self, module: Trained) -> Iterator[None]:
        share = 1 - self.keys.p
        kept = {name: kept_mask(p, self.keys.p, module, name) for name, p in self.weights.items()}
        mixed = {}
        for name, p in self.weights.items():
            u = self.start[name] = self.start[name].to(p.device)
            mixed[name] = torch.where(kept[name], u + (p.detach() - u) / share, u)
        with with_weights(self.weights, mixed):
            yield
        for name, p in self.weights.items():
            if p.grad is not None:
                p.grad.mul_(kept[name]).div_(share)


def kept_mask(weight: Tensor, p: float, module: Trained, name: str) -> Tensor:
    """True where a weight is its own, with probability 1 - p: the same on all ranks at a step."""
    seed = np.random.SeedSequence([module.config.order_seed, module.step, zlib.crc32(name.encode())])
    generator = torch.Generator(weight.device).manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
    return torch.rand(weight.shape, generator=generator, device=weight.device) >= p
