"""Classification of a text, or a pair of texts, that has any number of labels.

Each label is a decision of its own: the loss is the binary cross entropy, its mean over the labels. The probability
above which a label is given is chosen on the validation data: one for all labels, so that micro F1 is highest there, or
one for each, so that its own F1 is.

Shapes: N windows, E texts, C classes, B words of 32 labels each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from research.batching.pack import MicroBatch
from research.common.errors import UserError
from research.config.component import inside, key
from research.config.schema import Config
from research.data.columns import set_aside
from research.data.label_sets import read_label_sets, separator_of
from research.data.labels import collect_labels
from research.data.long_texts import HEAD_TAIL, TRUNCATE, WINDOW, encoded_texts
from research.data.source import Split
from research.metrics.multi_label import DEFAULT_THRESHOLD
from research.models.windows import firsts, mean_over_windows
from research.training.datamodule import Columns, TaskData
from research.training.module import TaskModule

BITS = 32


@dataclass
class Keys:
    threshold: float | None = key(
        None, "probability above which a label is given; null: the best on validation", inside("(0, 1)")
    )
    best_thresholds: Literal["one", "each"] = key(
        "one", "the best one for all labels, by micro F1, or of each, by its F1"
    )


class Data(TaskData):
    fields = {"text": "text", "text_pair": "text_pair", "label": "label"}
    optional = ("text_pair",)
    free = ("label",)
    texts = augmented = ("text", "text_pair")
    metric = "multi_label"
    class_column = None  # no weights: a text has several classes, or none
    long = (TRUNCATE, HEAD_TAIL, WINDOW)
    learned_names = ("labels", "separator")

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        if config.task.threshold is not None and config.task.best_thresholds == "each":
            raise UserError("task.threshold sets one for all labels, task.best_thresholds=each asks for one of each.")
        self.threshold = config.task.threshold or DEFAULT_THRESHOLD
        self.threshold_of: dict[str, float] = {}  # labels that have their own
        self.separator: str | None = None  # of labels that are written as text

    @property
    def window_columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """Which labels a text has, a bit each."""
        return tuple(f"labels_{i}" for i in range(-(-len(self.labels) // BITS)))

    def opened_splits(self, only: str | None = None) -> dict[str, Split]:
        """With the labels of all splits read alike, and those of other data as those that were trained on."""
        splits = super().opened_splits(only)
        self.separator = self.separator or separator_of(splits.values())
        return {name: read_label_sets(split, self.separator) for name, split in splits.items()}

    def prepared(self, split: Split) -> Split:
        if split.name != "input":
            return split
        try:
            return read_label_sets(split, self.separator or separator_of([split]))
        except UserError:
            return set_aside(split, "label")

    def collect(self, splits: Sequence[Split]) -> list[str]:
        return collect_labels(splits, "label", self.config.data.labels)

    def use_validation_scores(self, validation: Mapping[str, float]) -> None:
        """The thresholds that are best on validation, unless one is set."""
        if self.config.task.best_thresholds == "each":
            prefix = "threshold/"
            own = {name.removeprefix(prefix): x for name, x in validation.items() if name.startswith(prefix)}
            self.threshold_of = {label: float(x) for label, x in own.items()}
        elif self.config.task.threshold is None:
            self.threshold = float(validation.get("threshold", DEFAULT_THRESHOLD))

    def score_settings(self) -> dict[str, Any]:
        each = {"thresholds": "each"} if self.config.task.best_thresholds == "each" else {}
        return {"labels": self.labels, "threshold": self.threshold, **each}

    def encode(self, rows: Columns) -> Columns:
        texts, pairs = rows["text"], rows.get("text_pair", [None] * len(rows["text"]))
        columns = encoded_texts(self.tokenizer, texts, pairs, self.config.data.max_length, self.long_texts)
        sets = rows.get("label", [None] * len(texts))
        bits = [bits_of(labels or (), self.labels) for labels in sets]
        for i, name in enumerate(self.window_columns):
            columns[name] = [[row[i]] * len(windows) for row, windows in zip(bits, columns["windows"], strict=True)]
        return {**columns, "targets": [1.0] * len(texts)}

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        gold = split.rows["label"] if "label" in split.rows.column_names else [None] * len(split.rows)
        probabilities = np.stack([predictions[i]["probabilities"] for i in range(len(split.rows))]).astype(np.float64)
        limits = np.array([self.threshold_of.get(label, self.threshold) for label in self.labels])  # (C,)
        given = [[self.labels[i] for i in np.flatnonzero(row > limits)] for row in probabilities]
        kind = pa.list_(pa.string())
        return {
            "gold": pa.array(list(gold), kind),
            "prediction": pa.array(given, kind),
            "probabilities": list(probabilities),
        }


def bits_of(labels: Sequence[str], known: Sequence[str]) -> list[int]:
    """Which of the known labels are among `labels`, a bit each, 32 to a number."""
    held = set(labels)
    return [
        sum(1 << k for k, label in enumerate(known[start : start + BITS]) if label in held)
        for start in range(0, len(known), BITS)
    ]


class Module(TaskModule):
    auto_class = AutoModelForSequenceClassification
    monitor = "micro_f1"

    def __init__(self, config: Config, backbone: Any, data: Data, total_steps: int) -> None:
        super().__init__(config, backbone, data, total_steps)
        backbone.model.config.problem_type = "multi_label_classification"  # in the exported model

    def outputs(self, micro: MicroBatch) -> Tensor:
        """Logits (E, C)."""
        return mean_over_windows(self.backbone.sequence_logits(micro), micro.examples)

    def loss(self, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        logits, targets = self.outputs(micro), self.targets(micro)
        if self.training and self.config.optim.label_smoothing:
            smoothing = self.config.optim.label_smoothing
            targets = targets * (1 - smoothing) + smoothing / 2
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return loss.mean(dim=1).sum(), logits

    def targets(self, micro: MicroBatch) -> Tensor:
        """(E, C) 1 where a text has a label."""
        words = torch.stack([micro.sequences[name] for name in self.data.window_columns], dim=1)  # (N, B)
        words = words[torch.from_numpy(firsts(micro.examples)).to(words.device)]  # (E, B)
        bits = (words[..., None] >> torch.arange(BITS, device=words.device)) & 1  # (E, B, 32)
        return bits.flatten(1)[:, : len(self.data.labels)].float()

    def decode(self, micro: MicroBatch, outputs: Tensor) -> dict[int, dict[str, Any]]:
        probabilities = torch.sigmoid(outputs).float().cpu().numpy()
        texts = dict.fromkeys(micro.examples.tolist())
        return {row: {"probabilities": p} for row, p in zip(texts, probabilities, strict=True)}
