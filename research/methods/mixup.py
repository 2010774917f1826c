"""Mixup of embedded texts: each text stands between itself and another of its step, and so does its label.

Guo, Mao and Zhang 2019, Augmenting Data with Mixup for Sentence Classification: An Empirical Study (wordMixup), after
Zhang et al. 2018. With one share s a step, from Beta(alpha, alpha), and text j dealt to each text i of the step,

    x = s E(text i) + (1 - s) E(text j),  token by token
    loss = s CE(f(x), label i) + (1 - s) CE(f(x), label j)

The mixed text is as long as text i: where j is shorter, it gives zeros, and where it is longer, its end is left out.
Share and partners are drawn from (seed, step) over the whole step, whichever micro-batch or rank the partner is in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from research.config.key import at_least, key
from research.methods.divergence import COMPARES
from research.methods.embedded_tokens import MOVES, EmbeddedTokens
from research.methods.example_classes import class_of, refuse_other_than_one_class
from research.methods.hooks import Loss, MethodHooks, Trained

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch

MIX = 4  # what is drawn


@dataclass
class Keys:
    alpha: float = key(0.4, "of Beta(alpha, alpha), which a step's share is drawn from; 0: off", at_least(0))


class Method(MethodHooks):
    claims = (MOVES, COMPARES)
    reads_training_texts = True

    @property
    def is_off(self) -> bool:
        return bool(self.keys.alpha == 0)

    def on_model(self, module: Trained) -> None:
        refuse_other_than_one_class("mixup", module, windows=False)
        self.embedding: Any = module.backbone.model.get_input_embeddings()
        self.embedded = EmbeddedTokens(module)

    def loss(self, module: Trained, micro: MicroBatch, plain: Loss) -> tuple[Tensor, Any]:
        share, partners = self.drawn(module, micro.examples)
        ids, there = aligned(module.data.stores["train"].columns["input_ids"].rows(partners), micro.lengths)
        device, stream = micro.first.positions.device, micro.first
        places = stream.layout.fill if stream.layout is not None else lambda flat: stream.pad(flat, 0)

        def mixed(read: Tensor) -> Tensor:
            theirs: Tensor = self.embedding.forward(
                places(ids.to(device))
            )  # not called: the hook is for the text itself
            return share * read + (1 - share) * theirs * places(there.to(device))[..., None]

        _, outputs, _ = self.embedded.loss(plain, micro, mixed)
        [logits] = module.target_logits(micro, outputs)
        own, other = (class_of(module, rows).to(device) for rows in (micro.examples, partners))
        return share * module.cross_entropy(logits, own) + (1 - share) * module.cross_entropy(logits, other), outputs

    def drawn(self, module: Trained, examples: Any) -> tuple[float, Any]:
        """The share of a text in its mixture at this step, and the partner of each of these examples."""
        random = np.random.default_rng([module.config.order_seed, module.step, MIX])
        share = float(random.beta(self.keys.alpha, self.keys.alpha))
        batch = np.sort(module.data.plan.global_batch(module.step))
        dealt = dict(zip(batch.tolist(), random.permutation(batch).tolist(), strict=True))
        return share, np.array([dealt[example] for example in examples.tolist()])


def aligned(texts: list[Any], lengths: Any) -> tuple[Tensor, Tensor]:
    """Token ids of the partners under the tokens of texts of these lengths, (T,), and 1 where there are any."""
    ids, there = np.zeros(int(lengths.sum()), np.int64), np.zeros(int(lengths.sum()), np.float32)
    for start, length, text in zip(np.cumsum(lengths) - lengths, lengths, texts, strict=True):
        count = min(int(length), len(text))
        ids[start : start + count], there[start : start + count] = text[:count], 1
    ids[there == 0] = ids[0]  # any token of the step: its row is multiplied by zero
    return torch.from_numpy(ids), torch.from_numpy(there)
