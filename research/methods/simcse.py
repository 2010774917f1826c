"""SimCSE beside the task: a text under two dropout masks is nearer to itself than to the other texts of the step.

Gao, Yao and Chen 2021, SimCSE: Simple Contrastive Learning of Sentence Embeddings, its unsupervised loss as a
regulariser. The loss of a step is

    (CE(pass 1) + CE(pass 2)) / 2 + weight sum_i -log(exp(sim(h_i, h'_i) / t) / sum_j exp(sim(h_i, h'_j) / t))

over all texts of the step, on all ranks: h and h' are the hidden states of the first token in the two passes, sim their
cosine, t the temperature. Both sums are divided by the step's targets. The two passes are one: each sequence stands
twice in the packed row. Without dropout there is nothing to tell apart.

Shapes: N texts, H width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from research.batching.repeat import twice
from research.config.key import above, at_least, key
from research.methods.hooks import Loss, MethodHooks, Trained, Vectors
from research.methods.texts import TextVectors

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch
    from research.batching.plan import Indices


@dataclass
class Keys:
    weight: float = key(0.1, "factor of the contrastive loss", at_least(0))
    temperature: float = key(0.05, "of the similarities", above(0))


class Method(MethodHooks):
    passes = 2.6  # with several micro-batches in a step, whose forward pass is made twice; else 2
    copies = 2
    claims = ("compares the texts of a step",)

    @property
    def is_off(self) -> bool:
        return bool(self.keys.weight == 0)

    def on_model(self, module: Trained) -> None:
        self.texts = TextVectors("simcse", module)

    def embed(self, module: Trained, micro: MicroBatch, plain: Loss) -> tuple[Tensor, Vectors]:
        loss, vectors, examples = self.texts.of(plain, twice(micro))
        half = len(examples) // 2
        of = examples[:half]
        return loss / 2, {"first": (vectors[:half], of), "second": (vectors[half:], of)}

    def step_loss(self, module: Trained, vectors: dict[str, Tensor], examples: dict[str, Indices]) -> Tensor:
        return contrast(vectors["first"], vectors["second"], self.keys.temperature) * float(self.keys.weight)


def contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Summed over N texts: minus the log share of a text's own second vector among all second ones; each (N, H)."""
    h, other = (torch.nn.functional.normalize(x, dim=-1) for x in (first, second))
    return -(h @ other.T / temperature).log_softmax(1).diagonal().sum()
