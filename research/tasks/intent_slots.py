"""Intent and slots of an utterance, by two heads on one encoder: an intent at its first token, a tag at each word.

Chen, Zhuo and Wang 2019, BERT for Joint Intent Classification and Slot Filling. The two heads are rows of one linear
layer: those of the intents are read at the first token of the sequence, those of the tags at the first token of each
word. The loss is the mean of the cross entropies of words and intents; an intent counts as `task.intent_weight` words.

A long utterance is cut into windows as in `ner`; its intent's logits are the mean of those of its windows.

Shapes: T tokens, N windows, E utterances, I intents, C tags, W words that are targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForTokenClassification

from research.batching.pack import MicroBatch
from research.batching.store import NO_TARGET
from research.config.component import above, at_least, key
from research.data.entity_spans import completed
from research.data.labels import collect_labels, gold_labels, label_text
from research.data.source import Split
from research.metrics.tags import convert
from research.models.windows import firsts, mean_over_windows
from research.tasks.ner import decoded_words, encoded_sentences, placed_entities
from research.tasks.tags import refuse_other_tags, scheme_of
from research.training.datamodule import Columns, TaskData
from research.training.module import TaskModule


@dataclass
class Keys:
    stride: int = key(128, "tokens that two windows of one long utterance share", at_least(0, "tokens"))
    intent_weight: float = key(10.0, "words that an intent counts as in the loss", above(0))


class Data(TaskData):
    fields = {"tokens": "tokens", "tags": "tags", "label": "label"}
    gold = ("label", "tags")
    text_lists = aligned = ("tokens", "tags")
    texts = ()
    token_columns = ("input_ids", "token_type_ids", "word", "label")
    window_columns = ("intent",)
    metric = "intent_slots"
    class_column = None
    learned_names = ("labels", "tags", "scheme")
    tags: Sequence[str] = ()  # in IOB2
    scheme: Any = "IOB2"  # of the data

    def collect(self, splits: Sequence[Split]) -> list[str]:
        """The intents; the tags are kept beside them, in IOB2 whatever scheme the data is in."""
        found = collect_labels(splits, "tags", None)
        self.scheme = scheme_of(splits)
        kinds = sorted({tag[2:] or "_" for tag in found if tag != "O"})
        self.tags = found if self.scheme == "IOB2" else ["O", *(f"{part}-{kind}" for kind in kinds for part in "BI")]
        return collect_labels(splits, "label", None)

    def refuse_other_labels(self, split: Split) -> None:
        super().refuse_other_labels(split)
        refuse_other_tags(split, self.tags, self.scheme)

    @property
    def head(self) -> list[str]:
        return [*(f"intent {label}" for label in self.labels), *self.tags]

    def encode(self, rows: Columns) -> Columns:
        count, config = len(rows["tokens"]), self.config
        tags = [row and convert(row, self.scheme) for row in rows.get("tags", [None] * count)]
        columns = encoded_sentences(
            self.tokenizer, rows["tokens"], tags, self.tags, config.data.max_length, config.task.stride
        )
        ids = {label: i for i, label in enumerate(self.labels)}
        intents = [
            NO_TARGET if label is None else ids.get(label_text(label), NO_TARGET)
            for label in rows.get("label", [None] * count)
        ]
        columns["intent"] = [
            [intent, *[NO_TARGET] * (len(windows) - 1)]
            for intent, windows in zip(intents, columns["windows"], strict=True)
        ]
        weight = config.task.intent_weight
        columns["targets"] = [
            words + weight * (intent != NO_TARGET) for words, intent in zip(columns["targets"], intents, strict=True)
        ]
        return columns

    def score_settings(self) -> dict[str, Any]:
        return {"labels": self.labels, "tags": list(self.tags)}

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        rows = split.rows
        intents = gold_labels(split)
        tags: list[Any] = rows["tags"][:] if "tags" in rows.column_names else [None] * len(rows)
        columns: Columns = {"gold": [], "prediction": [], "probabilities": [], "confidence": []}
        for i, row in enumerate(rows):
            found: list[str | None] = [None] * len(row["tokens"])
            confidence = [1.0] * len(found)
            for word, label, probability in zip(*predictions[i]["words"], strict=True):
                found[word], confidence[word] = self.tags[label], probability
            probabilities = predictions[i]["probabilities"].astype(np.float64)
            intent, gold_intent, gold_tags = self.labels[int(probabilities.argmax())], intents[i], tags[i]
            unknown = gold_intent is None or gold_tags is None
            gold = None if unknown else {"intent": gold_intent, "tags": convert(gold_tags, self.scheme)}
            columns["gold"].append(gold)
            columns["prediction"].append({"intent": intent, "tags": completed(found)})
            columns["probabilities"].append(probabilities)
            columns["confidence"].append(confidence)
        return columns

    def places(
        self, found: dict[str, Any], answer: dict[str, Any], words: Sequence[tuple[int, int]] | None
    ) -> dict[str, Any]:
        """The slots of a text by their characters."""
        return {} if words is None else {"slots": placed_entities(answer["prediction"]["tags"], words)}


class Module(TaskModule):
    auto_class = AutoModelForTokenClassification
    monitor = "accuracy"

    def outputs(self, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        """Logits of the intents (E, I) and of the tags (T, C)."""
        logits = self.backbone.token_logits(micro)["logits"]
        count = len(self.data.labels)
        starts = torch.from_numpy(np.cumsum(micro.lengths) - micro.lengths).to(logits.device)
        return mean_over_windows(logits[starts, :count], micro.examples), logits[:, count:]

    def loss(self, micro: MicroBatch) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        intents, tags = outputs = self.outputs(micro)
        smoothing = self.config.optim.label_smoothing if self.training else 0.0
        total = self.config.task.intent_weight * _summed(intents, self._intents(micro), smoothing)
        return total + _summed(tags, micro.tokens["label"], smoothing), outputs

    def _intents(self, micro: MicroBatch) -> Tensor:
        """The intent of each utterance, (E,)."""
        return micro.sequences["intent"][firsts(micro.examples)]

    def target_logits(self, micro: MicroBatch, outputs: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Of each intent and each word, (E + W, max(I, C))."""
        intents, tags = outputs
        tags = tags[micro.tokens["label"] != NO_TARGET]
        classes = max(intents.shape[1], tags.shape[1])
        return [torch.cat([F.pad(x, (0, classes - x.shape[1]), value=-torch.inf) for x in (intents, tags)])]

    def decode(self, micro: MicroBatch, outputs: tuple[Tensor, Tensor]) -> dict[int, dict[str, Any]]:
        intents, tags = outputs
        probabilities = torch.softmax(intents, -1).float().cpu().numpy()
        decoded = decoded_words(micro, tags)
        for row, p in zip(dict.fromkeys(micro.examples.tolist()), probabilities, strict=True):
            decoded[row]["probabilities"] = p
        return decoded


def _summed(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    return F.cross_entropy(logits, targets, reduction="sum", ignore_index=NO_TARGET, label_smoothing=smoothing)
