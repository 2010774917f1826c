"""Sentiment and any other single-label classification of a text or a pair of texts.

Shapes: N sequences, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from research.batching.pack import MicroBatch
from research.data.cutting import beginning
from research.data.labels import collect_labels, label_text
from research.data.source import Split
from research.training.datamodule import Columns, TaskData
from research.training.module import TaskModule


class Data(TaskData):
    fields = {"text": "text", "text_pair": "text_pair", "label": "label"}
    optional = ("text_pair",)
    texts = ("text", "text_pair")
    window_columns = ("label",)
    metric = "classification"

    def collect(self, splits: Sequence[Split]) -> list[str]:
        return collect_labels(splits, "label", self.config.data.labels)

    def encode(self, rows: Columns) -> Columns:
        ids = {label: i for i, label in enumerate(self.labels)}
        limit = self.config.data.max_length
        short = partial(beginning, self.tokenizer, tokens=limit)
        pairs = zip(rows["text"], rows.get("text_pair", [None] * len(rows["text"])), strict=True)
        texts = [(short(text), short(pair)) if pair else short(text) for text, pair in pairs]
        tokens = self.tokenizer(texts, truncation=True, max_length=limit, return_attention_mask=False)
        kept = {name: tokens[name] for name in self.token_columns if name in tokens}
        return {
            **kept,
            "windows": [[len(row)] for row in tokens["input_ids"]],
            "label": [[ids.get(label_text(label), 0)] for label in rows.get("label", [""] * len(rows["text"]))],
            "targets": [1.0] * len(rows["text"]),
            "cut": [bool(encoding.overflowing) for encoding in tokens.encodings],
        }

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        gold = split.rows["label"] if "label" in split.rows.column_names else [None] * len(split.rows)
        probabilities = np.stack([predictions[i]["probabilities"] for i in range(len(split.rows))])
        return {
            "gold": [None if label is None else label_text(label) for label in gold],
            "prediction": [self.labels[i] for i in probabilities.argmax(1)],
            "probabilities": list(probabilities.astype(np.float64)),
        }


class Module(TaskModule):
    auto_class = AutoModelForSequenceClassification
    monitor = "accuracy"

    def outputs(self, micro: MicroBatch) -> Tensor:
        """Logits (N, C)."""
        return self.backbone.sequence_logits(micro)

    def loss(self, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        logits = self.outputs(micro)
        return self.cross_entropy(logits, micro.sequences["label"]), logits

    def target_logits(self, micro: MicroBatch, outputs: Tensor) -> list[Tensor]:
        return [outputs]

    def decode(self, micro: MicroBatch, outputs: Tensor) -> dict[int, dict[str, Any]]:
        probabilities = torch.softmax(outputs, -1).float().cpu().numpy()
        return {row: {"probabilities": p} for row, p in zip(micro.examples.tolist(), probabilities, strict=True)}
