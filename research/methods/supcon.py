"""SupCon: texts of one class are drawn together, and away from the others of the step.

Gunel et al. 2021, Supervised Contrastive Learning for Pre-trained Language Model Fine-tuning. The loss of a step is

    (1 - weight) CE + weight SCL
    SCL = sum_i -1 / (n_i - 1) sum_{j != i, y_j = y_i} log(exp(z_i z_j / t) / sum_{k != i} exp(z_i z_k / t))

over all N texts of the step, on all ranks: n_i are those of the class of i, z the hidden state of the first token
divided by its norm, t the temperature. A text that is alone in its class adds nothing. Both sums are divided by the
step's targets. (In-batch negatives as commonly written are those of a micro-batch, so that its size is a setting.)

Shapes: N texts, H width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from research.config.key import above, inside, key
from research.methods.example_classes import class_of, refuse_other_than_one_class
from research.methods.hooks import Loss, MethodHooks, Trained, Vectors
from research.methods.texts import TextVectors

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch
    from research.batching.plan import Indices


@dataclass
class Keys:
    weight: float = key(0.9, "share of the contrastive loss; the rest is cross entropy", inside("[0, 1]"))
    temperature: float = key(0.3, "of the similarities", above(0))


class Method(MethodHooks):
    passes = 1.3  # with several micro-batches in a step, whose forward pass is made twice; else 1
    claims = ("compares the texts of a step",)

    @property
    def is_off(self) -> bool:
        return bool(self.keys.weight == 0)

    def on_model(self, module: Trained) -> None:
        refuse_other_than_one_class("supcon", module, windows=True)
        self.texts = TextVectors("supcon", module)

    def embed(self, module: Trained, micro: MicroBatch, plain: Loss) -> tuple[Tensor, Vectors]:
        loss, vectors, examples = self.texts.of(plain, micro)
        return (1 - self.keys.weight) * loss, {"text": (vectors, examples)}

    def step_loss(self, module: Trained, vectors: dict[str, Tensor], examples: dict[str, Indices]) -> Tensor:
        labels = class_of(module, examples["text"]).to(vectors["text"].device)
        return supervised_contrast(vectors["text"], labels, self.keys.temperature) * float(self.keys.weight)


def supervised_contrast(vectors: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """SCL of (N, H) vectors of texts of these classes, (N,)."""
    z = torch.nn.functional.normalize(vectors, dim=-1)
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    similarity = (z @ z.T / temperature).masked_fill(own, -torch.inf)
    log_p = similarity.log_softmax(1).masked_fill(own, 0.0) if len(z) > 1 else torch.zeros_like(similarity)
    positive = (labels[:, None] == labels) & ~own
    return -((log_p * positive).sum(1) / positive.sum(1).clamp(min=1)).sum()
