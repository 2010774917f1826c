"""What the tasks share whose answer is text: the loss of the targets, and generation in evaluation.

Shapes: K targets, V vocabulary.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from research.batching.pack import MicroBatch
from research.common.errors import UserError
from research.config.schema import Config
from research.models.generate import Generator, end_tokens
from research.models.load import ENCODER_DECODER
from research.tasks.text_data import HEADS, TextData
from research.tasks.vocabulary_loss import vocabulary_loss
from research.training.module import TaskModule


class TextModule(TaskModule):
    """Cross entropy of the targets, and generated text in evaluation."""

    auto_classes = HEADS
    data: TextData

    def __init__(self, config: Config, backbone: Any, data: TextData, total_steps: int) -> None:
        super().__init__(config, backbone, data, total_steps)
        if self.sharded:
            raise UserError(f"task '{config.task.name}' generates text, which trainer.strategy=fsdp does not: use ddp.")
        model = backbone.model
        if data.family == ENCODER_DECODER:
            model.config.decoder_start_token_id = data.own.decoder_start_token_id  # a language's, of mBART
        theirs = getattr(model.generation_config, "forced_bos_token_id", None)
        first = theirs if data.first is None else data.first
        ends = end_tokens(model, data.end)
        self.generate = Generator(backbone, data.tokenizer, config.task, config.seed, ends, first)
        model.generation_config = self.generate.settings  # also in the exported model

    def notes(self) -> dict[str, Any]:
        return {"generation": self.generate.signature}

    @property
    def monitored(self) -> str:
        """The first score of the first of `task.metrics`, where none is asked for."""
        return self.config.trainer.monitor or str(self.data.scorer.scores[0].name)

    def loss(self, micro: MicroBatch) -> tuple[Tensor, Any]:
        return vocabulary_loss(self, micro, self.backbone.predicting(micro).tokens["label"])

    def target_logits(self, micro: MicroBatch, outputs: Tensor) -> list[Tensor]:
        return [outputs]

    def outputs(self, micro: MicroBatch) -> None:
        """Nothing: what is decoded is generated."""

    def decode(self, micro: MicroBatch, outputs: None) -> dict[int, dict[str, Any]]:
        generated = self.generate(micro)
        return {
            row: {"text": each.text, "ended": each.ended, "stopped_by": each.stopped_by, "others": list(each.others)}
            for row, each in zip(micro.examples.tolist(), generated, strict=True)
        }
