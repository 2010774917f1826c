"""One linear layer over an encoder's tokens as the head of any task, which several tasks on one encoder share.

A task on tokens reads it at each of them, a task on sequences at the first, one on answers as their start and end.

Shapes: T tokens, N sequences, C outputs of the head.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from research.batching.pack import MicroBatch
from research.batching.read_tokens import ALL, FIRST
from research.models.backbone import Backbone

HEADS = (AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoModelForQuestionAnswering)


class LinearHead(Backbone):
    """A model for token classification, read as a task whose own head is of `auto_class` reads it."""

    def __init__(self, model: PreTrainedModel, packing: bool | str, trains_alone: bool, auto_class: Any) -> None:
        super().__init__(model, packing, trains_alone)
        self.auto_class = auto_class

    def token_logits(self, micro: MicroBatch, which: str = ALL) -> dict[str, Tensor]:
        return read_at_tokens(super().token_logits(micro, which)["logits"], self.auto_class)

    def sequence_logits(self, micro: MicroBatch) -> Tensor:
        return read_at_first(super().token_logits(micro, FIRST)["logits"], micro)


def read_at_tokens(logits: Tensor, auto_class: Any) -> dict[str, Tensor]:
    """(T, C) under the names that a task with a head of `auto_class` asks for."""
    if auto_class is AutoModelForQuestionAnswering:
        return {"start_logits": logits[:, 0], "end_logits": logits[:, 1]}
    return {"logits": logits}


def read_at_first(logits: Tensor, micro: MicroBatch) -> Tensor:
    """(T, C) -> (N, C): at the first token of each sequence."""
    return logits[torch.from_numpy(np.cumsum(micro.lengths) - micro.lengths).to(logits.device)]
