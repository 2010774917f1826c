"""Multiple choice: which of an example's answers fits its text. Each choice is one window of the example.

With `data.long: window` a long text is read in several windows with each choice, whose score is the mean of theirs.

Shapes: N windows, K choices of all examples of a micro-batch, E examples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification

from research.batching.pack import MicroBatch
from research.batching.plan import Indices
from research.common.errors import UserError
from research.config.schema import DataConfig
from research.data.labels import gold_labels
from research.data.long_texts import HEAD_TAIL, TRUNCATE, WINDOW, encoded_texts
from research.data.source import Split
from research.models.windows import firsts, mean_over_windows, runs
from research.training.datamodule import Columns, TaskData
from research.training.module import TaskModule


class Data(TaskData):
    fields = {"text": "text", "choices": "choices", "label": "label"}  # label: the number of the right choice, from 0
    text_lists = ("choices",)
    window_columns = ("right", "choice")
    metric = "classification"
    long = (TRUNCATE, HEAD_TAIL, WINDOW)
    class_column = None  # a choice's number is no class

    @property
    def head(self) -> Sequence[str]:
        return ["score"]  # of a choice

    def _open(self, data: DataConfig, name: str, value: str, limit: int | None) -> Split:
        split = super()._open(data, name, value, limit)
        refuse_wrong_choices(split, labelled=name != "input")
        return split

    def collect(self, splits: Sequence[Split]) -> list[str]:
        most = max(len(choices) for split in splits for choices in split.rows["choices"])
        return [str(i) for i in range(most)]

    def encode(self, rows: Columns) -> Columns:
        columns: Columns = defaultdict(list)
        limit = self.config.data.max_length
        labels = rows.get("label", [None] * len(rows["text"]))
        for text, choices, label in zip(rows["text"], rows["choices"], labels, strict=True):
            pairs = encoded_texts(self.tokenizer, [text] * len(choices), choices, limit, self.long_texts)
            for name in {"input_ids", "token_type_ids", "windows"} & pairs.keys():
                columns[name].append(list(chain.from_iterable(pairs[name])))
            of_window = [i for i, windows in enumerate(pairs["windows"]) for _ in windows]
            columns["choice"].append(of_window)
            columns["right"].append([int(str(i) == str(label)) for i in of_window])
            columns["targets"].append(1.0)
            for name in ("cut", "several"):
                columns[name].append(any(pairs[name]))
        return columns

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        probabilities = [predictions[i]["probabilities"] for i in range(len(split.rows))]
        return {
            "gold": gold_labels(split),
            "prediction": [str(int(np.argmax(p))) for p in probabilities],
            "probabilities": [
                np.pad(p.astype(np.float64), (0, max(0, len(self.labels) - len(p)))) for p in probabilities
            ],
        }


def refuse_wrong_choices(split: Split, labelled: bool) -> None:
    """Raise UserError at the first row without choices or, where `labelled`, whose label is the number of none."""
    labels = split.rows["label"] if labelled else [None] * len(split.rows)
    for row, (choices, label) in enumerate(zip(split.rows["choices"], labels, strict=True)):
        if not choices:
            raise UserError(f"{split.where(row)}: 'choices' is empty; give the answers to choose from")
        if labelled and str(label) not in map(str, range(len(choices))):
            raise UserError(
                f"{split.where(row)}: the label {label!r} is not the number of one of the {len(choices)} choices; "
                f"write 0 for the first to {len(choices) - 1} for the last"
            )


class Module(TaskModule):
    auto_class = AutoModelForSequenceClassification
    monitor = "accuracy"

    def outputs(self, micro: MicroBatch) -> list[Tensor]:
        """For each of E examples, the log probabilities of its choices."""
        belongs_to = self._belongs_to(micro)
        scores = mean_over_windows(self.backbone.sequence_logits(micro)[:, 0], *belongs_to)  # (K,)
        return [torch.log_softmax(part, 0) for part in scores.split(runs(micro.examples[firsts(*belongs_to)]))]

    def _belongs_to(self, micro: MicroBatch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The example and the choice of each window, (N,)."""
        several = self.data.long_texts == WINDOW
        return micro.examples, micro.sequences["choice"].cpu().numpy() if several else np.arange(len(micro.examples))

    def loss(self, micro: MicroBatch) -> tuple[Tensor, list[Tensor]]:
        """Cross entropy; label smoothing spreads over an example's own choices, in training alone."""
        outputs, right = self.outputs(micro), micro.sequences["right"][firsts(*self._belongs_to(micro))]
        loss = -(torch.cat(outputs) * right).sum()
        smoothing = self.config.optim.label_smoothing if self.training else 0.0
        if smoothing:
            uniform = torch.stack([log_p.mean() for log_p in outputs]).sum()
            loss = (1 - smoothing) * loss - smoothing * uniform
        return loss, outputs

    def target_logits(self, micro: MicroBatch, outputs: list[Tensor]) -> list[Tensor]:
        return [pad_sequence(outputs, batch_first=True, padding_value=-torch.inf)]

    def target_examples(self, micro: MicroBatch) -> Indices:
        return np.array(list(dict.fromkeys(micro.examples.tolist())), np.int64)

    def decode(self, micro: MicroBatch, outputs: list[Tensor]) -> dict[int, dict[str, Any]]:
        examples = dict.fromkeys(micro.examples.tolist())
        return {row: {"probabilities": p.exp().float().cpu().numpy()} for row, p in zip(examples, outputs, strict=True)}
