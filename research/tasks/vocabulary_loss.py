"""The loss of targets that are tokens of the vocabulary.

Shapes: K targets, V vocabulary, T tokens.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from research.batching.pack import MicroBatch
from research.training.module import TaskModule
from research.training.unsmoothed_loss import note_unsmoothed


def vocabulary_loss(module: TaskModule, micro: MicroBatch, labels: Tensor) -> tuple[Tensor, Any]:
    """The loss summed over the tokens (T,) with a label, which is negative where there is nothing to learn.

    Outputs are the logits (K, V) where a method compares them in training, which would fill the memory elsewhere; else
    the places (K,) of the targets and their negative log likelihoods (K,).
    """
    asked = (labels >= 0).nonzero().squeeze(1)
    if module.training and module.compares_logits:
        logits = module.backbone.vocabulary_logits(micro, asked)
        return module.cross_entropy(logits, labels[asked]), logits
    smoothing = module.config.optim.label_smoothing if module.training else 0.0
    loss, nll = module.backbone.vocabulary_losses(micro, asked, labels[asked], smoothing)
    note_unsmoothed(module, micro, nll)
    return loss, (asked, nll)
