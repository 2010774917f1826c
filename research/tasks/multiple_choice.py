"""Multiple choice: which of an example's answers fits its text. Each choice is one window of the example.

Shapes: N windows (choices of all examples of a micro-batch), E examples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification

from research.batching.pack import MicroBatch
from research.data.source import Split
from research.training.datamodule import Columns, TaskData
from research.training.module import TaskModule


class Data(TaskData):
    fields = {"text": "text", "choices": "choices", "label": "label"}  # label: the number of the right choice, from 0
    window_columns = ("right",)
    metric = "classification"

    @property
    def head(self) -> Sequence[str]:
        return ["score"]  # of a choice

    def collect(self, splits: Sequence[Split]) -> list[str]:
        most = max(len(choices) for split in splits for choices in split.rows["choices"])
        return [str(i) for i in range(most)]

    def encode(self, rows: Columns) -> Columns:
        columns: Columns = defaultdict(list)
        limit = self.config.data.max_length
        for text, choices, label in zip(*(rows[name] for name in self.fields), strict=True):
            pairs = self.tokenizer(
                [text] * len(choices), choices, truncation=True, max_length=limit, return_attention_mask=False
            )
            for name in ("input_ids", "token_type_ids"):
                if name in pairs:
                    columns[name].append(list(chain.from_iterable(pairs[name])))
            columns["windows"].append([len(window) for window in pairs["input_ids"]])
            columns["right"].append([int(str(i) == str(label)) for i in range(len(choices))])
            columns["targets"].append(1.0)
        return columns

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        probabilities = [predictions[i]["probabilities"] for i in range(len(split.rows))]
        return {
            "gold": [str(label) for label in split.rows["label"]],
            "prediction": [str(int(np.argmax(p))) for p in probabilities],
            "probabilities": [p + [0.0] * (len(self.labels) - len(p)) for p in probabilities],
        }


class Module(TaskModule):
    auto_class = AutoModelForSequenceClassification
    monitor = "accuracy"

    def outputs(self, micro: MicroBatch) -> list[Tensor]:
        """For each of E examples, the log probabilities of its choices."""
        scores = self.backbone.sequence_logits(micro)[:, 0]  # (N,)
        counts = np.unique(np.cumsum(np.diff(micro.examples, prepend=-1) != 0), return_counts=True)[1]
        return [torch.log_softmax(part, 0) for part in scores.split(counts.tolist())]

    def loss(self, micro: MicroBatch) -> tuple[Tensor, list[Tensor]]:
        outputs = self.outputs(micro)
        return -(torch.cat(outputs) * micro.sequences["right"]).sum(), outputs

    def target_logits(self, micro: MicroBatch, outputs: list[Tensor]) -> list[Tensor]:
        return [pad_sequence(outputs, batch_first=True, padding_value=-torch.inf)]

    def decode(self, micro: MicroBatch, outputs: list[Tensor]) -> dict[int, dict[str, Any]]:
        examples = dict.fromkeys(micro.examples.tolist())
        return {row: {"probabilities": p.exp().tolist()} for row, p in zip(examples, outputs, strict=True)}
