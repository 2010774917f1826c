"""What the tasks share that learn from plain text: documents, their pieces, and the likelihood of what is predicted.

A split is a number of documents. Those of validation and test are examples, so that each has its scores; those of train
are cut into pieces of `data.max_length`, each an example: `optim.batch_size` counts pieces.

Shapes: K targets, V vocabulary, T tokens.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from research.batching.pack import MicroBatch
from research.common.errors import UserError
from research.config.schema import Config, DataConfig
from research.data.formats import Reading
from research.data.overview import SplitOverview
from research.data.source import Split
from research.models.load import load_config
from research.tasks.vocabulary_loss import vocabulary_loss
from research.training.datamodule import Columns, TaskData
from research.training.module import TaskModule

Outputs = tuple[Tensor, Tensor]  # (K,) places of the targets, (K,) their negative log likelihoods


class PlainTextData(TaskData):
    """Documents, the field `text`. Blank lines separate those of a `.txt` file; `data.format: text` is one a line."""

    fields = {"text": "text"}
    gold = ()
    prefix_space = False
    class_column = None
    learned_names = ()
    metric = "perplexity"
    heads: ClassVar[Mapping[str, Any]]  # family -> class of transformers
    masked: ClassVar[bool] = False  # are only some tokens predicted?

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        self.own = load_config(config, families=self.heads)
        self.trains = False  # a finished run reads its training data as documents, too
        self.of_train = False  # is the split that is being encoded the one to train on?

    def reading(self, data: DataConfig) -> Reading:
        return replace(super().reading(data), plain="documents")

    def collect(self, splits: Sequence[Split]) -> list[str]:
        """No labels. Raises UserError for an empty document."""
        for split in splits:
            for row, text in enumerate(split.rows["text"]):
                if not text.strip():
                    raise UserError(f"{split.where(row)}: the text is empty; take the row out.")
        return []

    def _overview(self) -> dict[str, SplitOverview]:
        """Overlap of splits is that of their longer documents: short ones are headings, which all texts share."""
        splits, self.splits = self.splits, {name: longer(split) for name, split in self.splits.items()}
        try:
            found = super()._overview()
        finally:
            self.splits = splits
        for name, about in found.items():
            about.examples = len(splits[name].rows)
        return found

    def open(self, learned: Mapping[str, Any] | None = None, only: str | None = None) -> None:
        self.trains = learned is None
        super().open(learned, only)

    def make_store(self, split: Split) -> Any:
        self.of_train = self.trains and split.name == "train"
        return super().make_store(split)

    def encode_reads(self) -> list[Any]:
        return [self.of_train]

    @property
    @abstractmethod
    def conditions(self) -> list[str]:
        """What decides the perplexity beside model and text, for its signature."""

    def score_settings(self) -> dict[str, Any]:
        return {"masked": self.masked, "conditions": self.conditions}

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        """The likelihood of each document; `gold` are its scored tokens, none for new text."""
        found = [predictions[i] for i in range(len(split.rows))]
        tokens = [row["tokens"] for row in found]
        return {
            "gold": [None] * len(found) if split.name == "input" else tokens,
            "prediction": [row["nll"] / max(row["tokens"], 1) for row in found],
            "nll": [row["nll"] for row in found],
            "tokens": tokens,
            "words": [len(text.split()) for text in split.rows["text"]],
            "bytes": [len(text.encode()) for text in split.rows["text"]],
        }


class PlainTextModule(TaskModule):
    """Cross entropy of the targets that `places_and_targets` names."""

    monitor = "perplexity"

    @abstractmethod
    def targets_of(self, micro: MicroBatch) -> tuple[MicroBatch, Tensor]:
        """The micro-batch as the model reads it, and what each token (T,) predicts: NO_TARGET where nothing."""

    def loss(self, micro: MicroBatch) -> tuple[Tensor, Any]:
        """Outputs are the logits (K, V) where a method compares them in training, else `Outputs`."""
        return vocabulary_loss(self, *self.targets_of(micro))

    def target_logits(self, micro: MicroBatch, outputs: Tensor) -> list[Tensor]:
        return [outputs]

    def outputs(self, micro: MicroBatch) -> Outputs:
        found: Outputs = self.loss(micro)[1]
        return found

    def decode(self, micro: MicroBatch, outputs: Outputs) -> dict[int, dict[str, Any]]:
        """Each example's summed negative log likelihood in nats, and over how many tokens."""
        asked, nll = outputs
        stream = self.backbone.predicting(micro)
        rows, owner = np.unique(np.repeat(stream.examples, stream.lengths), return_inverse=True)
        mine = owner[asked.cpu().numpy()]
        sums = np.bincount(mine, nll.double().cpu().numpy(), len(rows))
        counts = np.bincount(mine, minlength=len(rows))
        return {int(row): {"nll": float(s), "tokens": int(n)} for row, s, n in zip(rows, sums, counts, strict=True)}


def longer(split: Split, characters: int = 100) -> Split:
    """The split's documents of so many characters; its first one where there are none."""
    rows = [i for i, text in enumerate(split.rows["text"]) if len(text) >= characters]
    return replace(split, rows=split.rows.select(rows or [0]))


def affixes(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a text."""
    ids, plain = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    for start in range(len(ids) - len(plain) + 1):
        if ids[start : start + len(plain)] == plain:
            return ids[:start], ids[start + len(plain) :]
    return [], []


def flat(rows: Sequence[Sequence[Any]]) -> list[Any]:
    """All items of all rows, in order."""
    return [item for row in rows for item in row]
