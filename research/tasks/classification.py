"""Sentiment and any other single-label classification of a text or a pair of texts.

With `data.long: window` a long text is read in several windows. Its logits are the mean of theirs, in training too, and
loss, scores and predictions are of whole texts.

Shapes: N windows, E texts, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from research.batching.pack import MicroBatch
from research.batching.plan import Indices
from research.batching.store import NO_TARGET
from research.data.labels import collect_labels, gold_labels, label_text
from research.data.long_texts import HEAD_TAIL, TRUNCATE, WINDOW, encoded_texts
from research.data.source import Split
from research.models.windows import mean_over_windows
from research.training.datamodule import Columns, TaskData
from research.training.module import TaskModule


class Data(TaskData):
    fields = {"text": "text", "text_pair": "text_pair", "label": "label"}
    optional: ClassVar[tuple[str, ...]] = ("text_pair",)
    texts: ClassVar[tuple[str, ...]] = ("text", "text_pair")
    augmented: ClassVar[tuple[str, ...]] = ("text", "text_pair")
    window_columns = ("label",)
    metric = "classification"
    long: ClassVar[tuple[str, ...]] = (TRUNCATE, HEAD_TAIL, WINDOW)

    def collect(self, splits: Sequence[Split]) -> list[str]:
        return collect_labels(splits, "label", self.config.data.labels)

    def encode(self, rows: Columns) -> Columns:
        texts, pairs = rows["text"], rows.get("text_pair", [None] * len(rows["text"]))
        columns = encoded_texts(self.tokenizer, texts, pairs, self.config.data.max_length, self.long_texts)
        return {**columns, **self.targets(rows, columns["windows"])}

    def targets(self, rows: Columns, windows: list[list[int]]) -> Columns:
        """The label of each text, at its first window, and that it is one target."""
        ids = {label: i for i, label in enumerate(self.labels)}
        labels = [ids.get(label_text(label), 0) for label in rows.get("label", [""] * len(windows))]
        return {
            "label": [[label, *[NO_TARGET] * (len(each) - 1)] for label, each in zip(labels, windows, strict=True)],
            "targets": [1.0] * len(windows),
        }

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        probabilities = np.stack([predictions[i]["probabilities"] for i in range(len(split.rows))])
        return {
            "gold": gold_labels(split),
            "prediction": [self.labels[i] for i in probabilities.argmax(1)],
            "probabilities": list(probabilities.astype(np.float64)),
        }


class Module(TaskModule):
    auto_class: ClassVar[Any] = AutoModelForSequenceClassification
    monitor = "accuracy"

    def outputs(self, micro: MicroBatch) -> Tensor:
        """Logits (E, C)."""
        return mean_over_windows(self.backbone.sequence_logits(micro), micro.examples)

    def loss(self, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        logits, labels = self.outputs(micro), micro.sequences["label"]
        if len(labels) > len(logits):  # texts of several windows
            labels = labels[labels >= 0]
        return self.cross_entropy(logits, labels), logits

    def target_logits(self, micro: MicroBatch, outputs: Tensor) -> list[Tensor]:
        return [outputs]

    def target_examples(self, micro: MicroBatch) -> Indices:
        return np.array(list(dict.fromkeys(micro.examples.tolist())), np.int64)

    def decode(self, micro: MicroBatch, outputs: Tensor) -> dict[int, dict[str, Any]]:
        probabilities = torch.softmax(outputs, -1).float().cpu().numpy()
        texts = dict.fromkeys(micro.examples.tolist())
        return {row: {"probabilities": p} for row, p in zip(texts, probabilities, strict=True)}
