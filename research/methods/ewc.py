"""EWC: weights are held to those of an earlier task, each by how much that task depends on it.

Kirkpatrick et al. 2017, Overcoming catastrophic forgetting in neural networks. The loss of a step gains, for each
earlier run,

    strength / 2 * sum over i of F_i (w_i - w*_i)^2

with w* the encoder's weights after that run and F the diagonal of its Fisher information there, from its
`fisher.safetensors`, which `research continual` writes: of single examples, with labels drawn from the model. The
gradient is added once a step, before clipping, and is not divided by targets; the logged loss is without it. Heads are
not held. One run whose file accumulates those before it is online EWC (Schwarz et al. 2018, Progress & Compress).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from research.common.errors import UserError
from research.config.key import at_least, key
from research.data.source import file_sha256
from research.methods.hooks import MethodHooks, Trained
from research.models.parameters import trained_parameters

FILE = "fisher.safetensors"  # of a run: `fisher.<weight>` and `weight.<weight>` of its encoder


@dataclass
class Keys:
    strength: float = key(1000.0, "lambda, of the pull to the earlier weights", at_least(0))
    runs: list[str] = key([], "earlier runs, each with a fisher.safetensors")
    sha256: list[str] = key([], "of those files; others are refused; empty: not checked")


class Method(MethodHooks):
    needs_dense_embedding = True  # the pull moves all rows at each step
    needs_unsharded_weights = True

    @property
    def is_off(self) -> bool:
        return bool(self.keys.strength == 0)

    def on_model(self, module: Trained) -> None:
        trained = trained_parameters(module.backbone.model)
        self.held: dict[str, list[tuple[Tensor, Tensor]]] = {}  # of each weight: its Fisher and its value after a run
        if not self.keys.runs:
            raise UserError(
                "methods.ewc holds weights to those of earlier runs: name them in methods.ewc.runs (research continual "
                "writes the fisher.safetensors of each), or remove the method."
            )
        if self.keys.sha256 and len(self.keys.sha256) != len(self.keys.runs):
            raise UserError(
                f"methods.ewc: {len(self.keys.runs)} runs and {len(self.keys.sha256)} sha256; give one for each run."
            )
        for i, run in enumerate(self.keys.runs):
            path = Path(run) / FILE
            if not path.is_file():
                raise UserError(f"methods.ewc: {path} is not there; research continual writes it.")
            if self.keys.sha256 and file_sha256(path) != self.keys.sha256[i]:
                raise UserError(f"methods.ewc: {path} is not the file it was (its sha256 is not methods.ewc.sha256).")
            tensors = load_file(path)
            fisher, weights = ({name.partition(".")[2]: x for name, x in tensors.items() if name.startswith(part)}
                               for part in ("fisher.", "weight."))  # fmt: skip
            wrong = sorted(name for name, x in fisher.items() if name in trained and trained[name].shape != x.shape)
            if wrong or not fisher.keys() & trained.keys():
                raise UserError(f"methods.ewc: {path} is of another model than the one trained here.")
            for name, x in fisher.items():
                self.held.setdefault(name, []).append((x, weights[name]))

    @torch.no_grad()
    def after_backward(self, module: Trained) -> None:
        for name, p in trained_parameters(module.backbone.model).items():
            if name in self.held:
                self.held[name] = [(fisher.to(p.device), weight.to(p.device)) for fisher, weight in self.held[name]]
            for fisher, weight in self.held.get(name, ()):
                pull = self.keys.strength * fisher * (p - weight)
                p.grad = pull if p.grad is None else p.grad.add_(pull)
