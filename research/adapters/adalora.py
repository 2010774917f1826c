"""AdaLoRA: a change of every linear layer in the form of an SVD, whose ranks go where they matter most.

Zhang et al. 2023, Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning. The change is B diag(E) A. After each
step the importance of each of its triplets is the product of smoothed sensitivity |w dL/dw| and its smoothed
uncertainty; the least important are set to zero, under a budget that falls by a cubic from `initial_rank` to `rank` a
layer on the average. A penalty keeps A and B near orthogonal; it is added to the gradients once a step.

The layers are peft's, the allocation is ours: it stands in the checkpoint, and counts optimiser steps. The adapter's
file is one of LoRA with the ranks that are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from research.adapters import peft_layers
from research.adapters.hooks import AdapterHooks
from research.adapters.lora import refuse_rank
from research.adapters.peft_layers import ADAPTER, import_peft, layers_of
from research.adapters.targets import ROLES, ends_of, targets
from research.common.errors import UserError
from research.config.key import above, at_least, inside, key

PARTS = ("A", "B", "E")


@dataclass
class Keys:
    rank: int = key(8, "mean rank of a layer's change in the end", at_least(1))
    initial_rank: int = key(12, "rank of each layer's change in the beginning", at_least(1))
    alpha: float = key(16.0, "scale of the change: alpha / initial_rank", above(0))
    dropout: float = key(0.0, "of the change's input", inside("[0, 1)"))
    targets: list[str] = key(["q", "v"], f"linear layers by role ({', '.join(ROLES)}) or by the end of their names")
    top_layers: int | None = key(None, "adapt so many of the highest layers; null: all", at_least(1))
    warmup_ratio: float = key(0.1, "share of the steps before the budget falls", inside("[0, 1)"))
    final_ratio: float = key(0.3, "share of the steps after it has fallen", inside("[0, 1)"))
    every_steps: int = key(1, "steps between two allocations", at_least(1))
    sensitivity_decay: float = key(0.85, "of the smoothed sensitivity", inside("(0, 1)"))
    uncertainty_decay: float = key(0.85, "of the smoothed uncertainty", inside("(0, 1)"))
    orthogonality: float = key(0.1, "weight of the penalty on A and B", at_least(0))


class Adapter(AdapterHooks):
    acts_by_length = True  # the budget falls over shares of it
    has_own_file = True
    shards = False  # importance needs unsharded gradients

    def __init__(self, keys: Any) -> None:
        super().__init__(keys)
        self.sensitivity: dict[str, Tensor] = {}
        self.uncertainty: dict[str, Tensor] = {}
        self.kept: dict[str, Tensor] = {}  # layer -> (initial_rank,) is a triplet in use?

    def apply(self, model: PreTrainedModel) -> str:
        """Raises UserError without peft, for a model that has an adapter, for a target that hits nothing and for ranks
        that mean nothing."""
        peft, k = import_peft("adalora"), self.keys
        peft_layers.refuse_two_adapters(model, "adalora")
        if k.rank >= k.initial_rank:
            raise UserError(f"adapter.rank={k.rank} must be below adapter.initial_rank={k.initial_rank}.")
        if k.warmup_ratio + k.final_ratio >= 1:
            raise UserError("adapter.warmup_ratio and adapter.final_ratio leave no steps in which the budget falls.")
        hits = targets(model, k.targets, k.top_layers)
        refuse_rank(model, hits, k.initial_rank)
        settings = peft.AdaLoraConfig(
            target_r=k.rank, init_r=k.initial_rank, lora_alpha=k.alpha, lora_dropout=k.dropout, target_modules=hits,
            total_step=10**9,  # of peft's own allocator, which is not used
        )  # fmt: skip
        peft_layers.inject(model, settings)
        return f"adalora: rank {k.initial_rank} to {k.rank} beside {len(hits)} linear layers ({ends_of(hits)})"

    def after_backward(self, model: PreTrainedModel) -> None:
        """Add the gradient of the mean Frobenius norm of A A' - I and B' B - I over all matrices."""
        if not self.keys.orthogonality:
            return
        layers = adapted_layers(model)
        for layer in layers.values():
            for matrix, is_b in ((layer.lora_A[ADAPTER], False), (layer.lora_B[ADAPTER], True)):
                rows = matrix.detach().T if is_b else matrix.detach()  # (rank, width)
                off = rows @ rows.T - torch.eye(len(rows), device=rows.device)
                gradient = 2 * off @ rows / off.norm().clamp(min=1e-12)
                gradient = gradient * self.keys.orthogonality / (2 * len(layers))
                if matrix.grad is not None:
                    matrix.grad += gradient.T if is_b else gradient

    @torch.no_grad()
    def after_step(self, model: PreTrainedModel, step: int, total_steps: int) -> None:
        """Smooth the importance of each weight, and set what is beyond the budget to zero."""
        layers, last = adapted_layers(model), total_steps - round(self.keys.final_ratio * total_steps)
        if step < last:
            self._smooth(layers)
        budget = budget_of(step, total_steps, len(layers), self.keys)
        if budget is not None and step <= last:
            self._allocate(layers, budget)
        for name, kept in self.kept.items():
            layers[name].lora_E[ADAPTER][~kept] = 0

    def _smooth(self, layers: dict[str, Any]) -> None:
        for name, layer in layers.items():
            for part in PARTS:
                weight = getattr(layer, f"lora_{part}")[ADAPTER]
                found = (weight * weight.grad).abs() if weight.grad is not None else torch.zeros_like(weight)
                place = f"{name}.{part}"
                sensitivity = self.sensitivity.setdefault(place, torch.zeros_like(found))
                uncertainty = self.uncertainty.setdefault(place, torch.zeros_like(found))
                sensitivity.lerp_(found, 1 - self.keys.sensitivity_decay)
                uncertainty.lerp_((found - sensitivity).abs(), 1 - self.keys.uncertainty_decay)

    def _allocate(self, layers: dict[str, Any], budget: int) -> None:
        """Keep the `budget` most important triplets of all layers."""
        scores = {name: self._importance(name) for name in layers}
        everything = torch.cat(list(scores.values()))
        dropped = len(everything) - budget
        if dropped > 0:
            threshold = torch.kthvalue(everything, dropped)[0]
            self.kept = {name: score > threshold for name, score in scores.items()}

    def _importance(self, name: str) -> Tensor:
        """(initial_rank,) of the triplets of a layer: of E, and the means over the rows of A and the columns of B."""
        a, b, e = (self.sensitivity[f"{name}.{part}"] * self.uncertainty[f"{name}.{part}"] for part in PARTS)
        return e.flatten() + a.mean(dim=1) + b.mean(dim=0)

    def state(self) -> dict[str, Tensor]:
        kept = {f"kept.{name}": mask.to(torch.uint8) for name, mask in self.kept.items()}
        smoothed = {"sensitivity": self.sensitivity, "uncertainty": self.uncertainty}
        return kept | {f"{kind}.{name}": t for kind, tensors in smoothed.items() for name, t in tensors.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        def part(kind: str) -> dict[str, Tensor]:
            return {name.removeprefix(kind): t.clone() for name, t in state.items() if name.startswith(kind)}

        self.sensitivity, self.uncertainty = part("sensitivity."), part("uncertainty.")
        self.kept = {name: mask.bool() for name, mask in part("kept.").items()}

    def plain_state(self, model: PreTrainedModel, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The adapted weights merged, in their own precision."""
        layers = adapted_layers(model)
        plain = peft_layers.without_adapter(state, layers, (".lora_", ".ranknum."))
        for name, layer in layers.items():
            a, b = factors(name, state)
            change = scale_of(layer) * (b @ a)
            plain[f"{name}.weight"] = plain[f"{name}.weight"] + (change.T if layer.fan_in_fan_out else change)
        return {name: plain[name] for name in sorted(plain)}

    def export(
        self, model: PreTrainedModel, state: dict[str, Tensor], base: str, revision: str | None, folder: Path
    ) -> None:
        """A LoRA adapter with a rank for each layer, as `PeftModel.from_pretrained` opens it, with head and poolers."""
        own, ranks, alphas = {}, {}, {}
        for name, layer in adapted_layers(model).items():
            a, b = factors(name, state)
            used = a.abs().amax(dim=1) > 0
            if not used.any():
                used[0] = True  # a file of LoRA has no layer of rank 0
            own[f"{name}.lora_A.{ADAPTER}.weight"], own[f"{name}.lora_B.{ADAPTER}.weight"] = a[used], b[:, used]
            ranks[name] = int(used.sum())
            alphas[name] = scale_of(layer) * ranks[name]
        settings = import_peft().LoraConfig(
            r=self.keys.rank, lora_alpha=self.keys.alpha, target_modules=list(ranks), rank_pattern=ranks,
            alpha_pattern=alphas,
        )  # fmt: skip
        peft_layers.save(model, own, state, settings, base, revision, folder)


def budget_of(step: int, total_steps: int, layers: int, keys: Any) -> int | None:
    """Triplets that are in use after a step (from 1) over all layers; None where nothing is allocated after it."""
    first = round(keys.warmup_ratio * total_steps)
    last = total_steps - round(keys.final_ratio * total_steps)
    start, end = keys.initial_rank * layers, keys.rank * layers
    if step <= first or step > last:
        return None
    if step < last and step % keys.every_steps:
        return None
    return int((start - end) * (1 - (step - first) / (last - first)) ** 3 + end)


def factors(name: str, state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """diag(E) A (rank, in) and B (out, rank) of a layer."""
    a, b, e = (state[f"{name}.lora_{part}.{ADAPTER}"] for part in PARTS)
    return a * e, b


def scale_of(layer: Any) -> float:
    """What peft's layer multiplies its change by."""
    return float(layer.scaling[ADAPTER]) / (float(layer.ranknum[ADAPTER]) + 1e-5)


def adapted_layers(model: PreTrainedModel) -> dict[str, Any]:
    """peft's AdaLoRA layers by name."""
    return layers_of(model, import_peft("adalora").tuners.adalora.AdaLoraLayer)
