"""UDA: an unlabelled text and its augmented copy must get the same answer.

Xie et al. 2020, Unsupervised Data Augmentation for Consistency Training. The loss of a step is

    1/Z sum_labelled 1[p(y | x) <= eta_t] CE(y, p(x))
        + weight / U sum_unlabelled 1[max p(x) > confidence] KL(q(x) || p(x'))

with p the softmax of the logits z, q that of z / temperature, through which no gradient flows, x' the text as `augment`
changes it, and U the unlabelled texts of the step. Training signal annealing keeps the labelled texts out that the
model is too sure of: Z are those that are left, and eta_t rises from 1 / C to 1 over training,

    eta_t = a_t (1 - 1 / C) + 1 / C,  a_t = t / T (linear), 1 - exp(-5 t / T) (log) or exp(5 (t / T - 1)) (exp)

without it (`tsa: none`) Z are all labelled texts. All sums are over the whole step, on all ranks.

Shapes: L labelled texts of a step, U unlabelled ones, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from research.batching.unlabelled import NO_TARGET
from research.common.errors import UserError
from research.config.key import above, at_least, inside, key
from research.methods.divergence import COMPARES
from research.methods.example_classes import class_of
from research.methods.hooks import Loss, MethodHooks, Trained, Vectors
from research.methods.unlabelled import logits_of, packed, refuse_other_tasks, refuse_without_unlabelled

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch
    from research.batching.plan import Indices


@dataclass
class Keys:
    weight: float = key(1.0, "factor of the consistency loss", at_least(0))
    temperature: float = key(0.4, "sharpens what the copy is to agree with; 1: not", above(0))
    confidence: float = key(0.8, "unlabelled texts whose best class is less probable count nothing", inside("[0, 1)"))
    tsa: Literal["none", "linear", "log", "exp"] = key(
        "none", "training signal annealing: when labelled texts that are learned already count again"
    )


class Method(MethodHooks):
    passes = 1.6  # with several micro-batches in a step, whose forward passes are made twice; else 1.3
    needs_dense_embedding = True  # a text has words that its changed copy has not
    reads_unlabelled = True
    acts_by_length = True  # training signal annealing
    claims = ("compares the texts of a step", COMPARES)

    @property
    def is_off(self) -> bool:
        return bool(self.keys.weight == 0 and self.keys.tsa == "none")

    def on_model(self, module: Trained) -> None:
        refuse_without_unlabelled("uda", module)
        refuse_other_tasks("uda", module)
        if module.data.epochs is None:
            raise UserError(
                "methods.uda compares a text with its changed copy: say in augment how it is changed, as in "
                "augment: {swap: {share: 1}, delete: {share: 1}}."
            )

    def embed(self, module: Trained, micro: MicroBatch, plain: Loss) -> tuple[Tensor, Vectors]:
        _, outputs = plain(micro)
        [logits] = module.target_logits(micro, outputs)
        unlabelled = micro.examples[micro.examples >= len(module.data.stores["train"])]
        written = logits.detach()[:0]
        if len(unlabelled):
            written = logits_of(module, packed(module, unlabelled, micro))
        zero = torch.zeros((), device=logits.device)
        return zero, {"logits": (logits, micro.examples), "written": (written, unlabelled)}

    def step_loss(self, module: Trained, vectors: dict[str, Tensor], examples: dict[str, Indices]) -> Tensor:
        targets = torch.from_numpy(module.data.stores["train"].targets)
        logits, labelled = vectors["logits"], int((examples["logits"] < len(targets)).sum())
        own = examples["logits"][:labelled]
        labels, weight = class_of(module, own).to(logits.device), targets[torch.from_numpy(own)].to(logits.device)
        keep = self.kept(logits[:labelled], labels, module.step / module.total_steps)
        loss: Tensor = module.cross_entropy(logits[:labelled], labels.where(keep, NO_TARGET))
        loss = loss / (weight * keep).sum().clamp(min=1e-12)
        loss = loss + self.keys.weight * consistency(
            vectors["written"], logits[labelled:], self.keys.temperature, self.keys.confidence
        )
        return loss * weight.sum()

    def kept(self, logits: Tensor, labels: Tensor, done: float) -> Tensor:
        """(L,) the labelled texts that count; `done`: the share of training that is done."""
        if self.keys.tsa == "none":
            return torch.ones_like(labels, dtype=torch.bool)
        p = logits.detach().softmax(-1).gather(1, labels[:, None])[:, 0]
        return p <= threshold(self.keys.tsa, done, logits.shape[1])


def threshold(schedule: str, done: float, classes: int) -> float:
    """eta_t: the probability of its label from which a labelled text counts nothing."""
    rise = {"linear": done, "log": 1 - math.exp(-5 * done), "exp": math.exp(5 * (done - 1))}[schedule]
    return rise * (1 - 1 / classes) + 1 / classes


def consistency(written: Tensor, changed: Tensor, temperature: float, confidence: float) -> Tensor:
    """KL(sharpened written || changed) of the confident texts, divided by all; logits (U, C)."""
    with torch.no_grad():
        sure = written.softmax(-1).amax(-1) > confidence
        log_q = (written / temperature).log_softmax(-1)
    divergence = (log_q.exp() * (log_q - changed.log_softmax(-1))).sum(-1)
    return (divergence * sure).sum() / max(len(written), 1)
