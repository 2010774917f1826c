"""A number for a text, or for a pair of texts: similarity, readability, the strength of an emotion.

The loss is the mean squared error.

Shapes: N windows, E texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from research.batching.pack import MicroBatch
from research.common.errors import UserError
from research.config.schema import Config
from research.data.long_texts import HEAD_TAIL, TRUNCATE, WINDOW, encoded_texts
from research.data.source import Split
from research.models.windows import firsts, mean_over_windows
from research.training.datamodule import Columns, TaskData
from research.training.module import TaskModule


class Data(TaskData):
    fields = {"text": "text", "text_pair": "text_pair", "score": "score"}
    optional = ("text_pair",)
    gold = ("score",)
    free = ("score",)
    texts = augmented = ("text", "text_pair")
    window_columns = ("score",)
    metric = "regression"
    class_column = None
    head = ("score",)
    long = (TRUNCATE, HEAD_TAIL, WINDOW)

    def collect(self, splits: Sequence[Split]) -> list[str]:
        """No labels. Raises UserError for a score that is not a number."""
        for split in splits:
            for row, value in enumerate(split.rows["score"] if "score" in split.rows.column_names else ()):
                if number(value) is None:
                    raise UserError(f"{split.where(row)}: the score {value!r} is not a number; write one, as in 3.5")
        return []

    def encode(self, rows: Columns) -> Columns:
        texts, pairs = rows["text"], rows.get("text_pair", [None] * len(rows["text"]))
        columns = encoded_texts(self.tokenizer, texts, pairs, self.config.data.max_length, self.long_texts)
        scores = [number(value) or 0.0 for value in rows.get("score", [None] * len(texts))]
        bits = np.array(scores, np.float32).view(np.int32).tolist()  # a store holds integers
        windows = columns["windows"]
        return {
            **columns,
            "score": [[score] * len(mine) for score, mine in zip(bits, windows, strict=True)],
            "targets": [1.0] * len(texts),
        }

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        gold = split.rows["score"] if "score" in split.rows.column_names else [None] * len(split.rows)
        return {
            "gold": [number(value) for value in gold],
            "prediction": [float(predictions[i]["score"]) for i in range(len(split.rows))],
        }


def number(value: Any) -> float | None:
    """A finite number from a number or its text, with a decimal point or comma; None for anything else."""
    try:
        found = float(value.replace(",", ".") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


class Module(TaskModule):
    auto_class = AutoModelForSequenceClassification
    monitor = "pearson"

    def __init__(self, config: Config, backbone: Any, data: Data, total_steps: int) -> None:
        super().__init__(config, backbone, data, total_steps)
        backbone.model.config.problem_type = "regression"  # in the exported model
        if config.optim.label_smoothing:
            raise UserError(f"task '{config.task.name}' has no classes for optim.label_smoothing; remove the key.")

    def outputs(self, micro: MicroBatch) -> Tensor:
        """Predicted numbers (E,)."""
        return mean_over_windows(self.backbone.sequence_logits(micro), micro.examples)[:, 0]

    def loss(self, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        found = self.outputs(micro)
        first = torch.from_numpy(firsts(micro.examples)).to(found.device)
        gold = micro.sequences["score"][first].to(torch.int32).view(torch.float32)  # (E,)
        return ((found - gold) ** 2).sum(), found

    def decode(self, micro: MicroBatch, outputs: Tensor) -> dict[int, dict[str, Any]]:
        texts = dict.fromkeys(micro.examples.tolist())
        return {row: {"score": score} for row, score in zip(texts, outputs.float().tolist(), strict=True)}
