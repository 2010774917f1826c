"""Named-entity recognition.

A sentence longer than the model is cut into overlapping windows, and each word is a target in exactly one of
them, the one that shows most of its surroundings: no word is lost and none counts twice. The label of a word
stands at its first token (Devlin et al. 2019).

Data with `entities` marked in a `text` by their characters, as annotation tools write it, is read with each character
as a word: map both in `data.columns`.

Shapes: T tokens, C tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from transformers import AutoModelForTokenClassification

from research.batching.pack import MicroBatch
from research.batching.plan import Indices
from research.batching.read_tokens import MARKED
from research.batching.store import INPUT, NO_TARGET, Store
from research.common.errors import UserError
from research.config.component import at_least, key
from research.config.schema import Config, DataConfig
from research.data.augment.words import Word, Words
from research.data.columns import set_aside
from research.data.entity_spans import OUTSIDE, completed, with_characters
from research.data.labels import collect_labels
from research.data.long_texts import WINDOW
from research.data.source import Split
from research.metrics.tags import Scheme, convert, detect_scheme, lenient_entities
from research.tasks.tags import refuse_other_tags, scheme_of
from research.training.datamodule import Columns, TaskData
from research.training.module import TaskModule


@dataclass
class Keys:
    stride: int = key(128, "tokens that two windows of one long sentence share", at_least(0, "tokens"))


class Data(TaskData):
    fields = {"tokens": "tokens", "tags": "tags"}
    gold = ("tags",)
    text_lists = aligned = ("tokens", "tags")
    tagged = True
    token_columns = ("input_ids", "token_type_ids", "word", "label")
    metric = "entities"
    long = (WINDOW,)
    learned_names = ("labels", "scheme")
    scheme: Any = "IOB2"  # of the data; it is converted to IOB2

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        self.marked = "entities" in config.data.columns
        if self.marked:
            self.fields, self.gold = {"text": "text", "entities": "entities"}, ("entities",)  # type: ignore[misc]
            self.free = ("entities",)  # type: ignore[misc]

    def _open(self, data: DataConfig, name: str, value: str, limit: int | None) -> Split:
        split = super()._open(data, name, value, limit)
        try:
            split = with_characters(split) if self.marked else split
            readable = name != "input" or self._reads(split)
        except UserError:
            if name != "input":
                raise
            readable, split = False, with_characters(set_aside(split, "entities"))
        return split if readable else set_aside(split, "tags")

    def _reads(self, split: Split) -> bool:
        """Whether the tags of new text are tags: placeholders and parts of speech occur there too."""
        if "tags" not in split.rows.column_names:
            return True
        for tokens, tags in zip(split.rows["tokens"], split.rows["tags"], strict=True):
            if tags is not None and not (isinstance(tags, list) and len(tags) == len(tokens)):
                return False
            try:
                detect_scheme([tags or []])
            except (ValueError, AttributeError):  # no tags, or no text
                return False
        return True

    def collect(self, splits: Sequence[Split]) -> list[str]:
        """Tags in IOB2, whatever scheme the data is in."""
        found = collect_labels(splits, "tags", self.config.data.labels)
        self.scheme = scheme_of(splits)
        if self.scheme == "IOB2":
            return found
        kinds = sorted({tag[2:] or "_" for tag in found if tag != OUTSIDE})
        return [OUTSIDE, *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI")]

    def refuse_other_labels(self, split: Split) -> None:
        refuse_other_tags(split, self.labels, self.scheme)

    @property
    def augmented(self) -> tuple[str, ...]:  # type: ignore[override]
        """The words, unless entities are marked in a text by their characters."""
        return () if self.marked else ("tokens",)

    def words(self, row: Mapping[str, Any]) -> list[Words]:
        tags = convert(row["tags"], self.scheme)
        return [[Word(text, tag=tag) for text, tag in zip(row["tokens"], tags, strict=True)]]

    def from_words(self, row: Mapping[str, Any], texts: Sequence[Words]) -> Mapping[str, Any]:
        [words] = texts
        return {"tokens": [word.text for word in words], "tags": [word.tag for word in words]}

    def encode_augmented(self, rows: Columns) -> Columns:
        return self._encode(rows, "IOB2")

    def encode(self, rows: Columns) -> Columns:
        return self._encode(rows, self.scheme)

    def _encode(self, rows: Columns, scheme: Scheme) -> Columns:
        tags = [row and convert(row, scheme) for row in rows.get("tags", [None] * len(rows["tokens"]))]
        limit, stride = self.config.data.max_length, self.config.task.stride
        return encoded_sentences(self.tokenizer, rows["tokens"], tags, self.labels, limit, stride)

    def marked_store(self, store: Store) -> Store:
        store.mark(INPUT, lambda tokens: tokens["word"].numpy() >= 0)
        return store

    def gold_table(self, split: Split) -> pa.Table | None:
        tags = [convert(row, self.scheme) for row in split.rows["tags"]]
        return pa.table({"tokens": split.rows["tokens"][:], "gold": tags})

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        tagged = "tags" in split.rows.column_names
        columns: Columns = {"gold": [], "prediction": [], "confidence": []}
        for i, row in enumerate(split.rows):
            prediction: list[str | None] = [None] * len(row["tokens"])
            confidence = [1.0] * len(prediction)
            for word, label, probability in zip(*predictions[i]["words"], strict=True):
                prediction[word], confidence[word] = self.labels[label], probability
            columns["gold"].append(convert(row["tags"], self.scheme) if tagged and row["tags"] is not None else None)
            columns["prediction"].append(completed(prediction))
            columns["confidence"].append(confidence)
        return columns

    def places(
        self, found: dict[str, Any], answer: dict[str, Any], words: Sequence[tuple[int, int]] | None
    ) -> dict[str, Any]:
        """The entities of a text by their characters."""
        return {} if words is None else {"entities": placed_entities(answer["prediction"], words)}


def placed_entities(tags: Sequence[str], words: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Entities by the first character and the end of their words."""
    return [
        {"label": kind, "start": words[first][0], "end": words[end - 1][1]}
        for kind, first, end in lenient_entities(tags)
    ]


def encoded_sentences(
    tokenizer: Any,
    sentences: Sequence[Sequence[str]],
    tags: Sequence[Any],
    labels: Sequence[str],
    limit: int,
    stride: int,
) -> Columns:
    """Sentences in windows of at most `limit` tokens, of which two of a sentence share `stride`.

    `tags` are IOB2, or None where a sentence has none. Columns: those of the tokenizer; of each token `word`, the word
    whose first token it is, and `label`, the number of that word's tag; `windows`, `several` and `targets`.
    """
    overlap = min(stride, (limit - tokenizer.num_special_tokens_to_add()) // 2)
    tokens = tokenizer(
        sentences,
        is_split_into_words=True,
        truncation=True,
        max_length=limit,
        stride=overlap,
        return_overflowing_tokens=True,
        return_attention_mask=False,
    )
    windows = group(tokens["overflow_to_sample_mapping"], len(sentences))
    words = [words_shown_best([tokens.word_ids(w) for w in mine]) for mine in windows]
    ids = {tag: i for i, tag in enumerate(labels)}
    numbers = [
        [NO_TARGET if w < 0 or not row else ids.get(row[w], NO_TARGET) for w in chain.from_iterable(mine)]
        for mine, row in zip(words, tags, strict=True)
    ]
    return {
        **{
            name: [list(chain.from_iterable(tokens[name][w] for w in mine)) for mine in windows]
            for name in ("input_ids", "token_type_ids")
            if name in tokens
        },
        "word": [list(chain.from_iterable(mine)) for mine in words],
        "label": numbers,
        "windows": [[len(window) for window in mine] for mine in words],
        "several": [len(mine) > 1 for mine in words],
        "targets": [float(sum(number != NO_TARGET for number in row)) for row in numbers],
    }


def group(examples: Sequence[int], count: int) -> list[list[int]]:
    """The windows of each of `count` examples, from the example of each window."""
    windows: list[list[int]] = [[] for _ in range(count)]
    for window, example in enumerate(examples):
        windows[example].append(window)
    return windows


def words_shown_best(windows: list[list[int | None]]) -> list[list[int]]:
    """For each token of each window its word, where it is the word's first token and the window shows it best; else -1.

    `windows` are the word of each token (None: a special token) of one sentence's windows, in order.
    """
    best: dict[int, tuple[int, int, int]] = {}  # word -> (context in tokens, window, token)
    for k, window in enumerate(windows):
        inside = [i for i, word in enumerate(window) if word is not None]
        for position, i in enumerate(inside):
            word = window[i]
            if word is None or (position and window[inside[position - 1]] == word):
                continue
            if position == 0 and k > 0 and word in windows[k - 1]:
                continue  # the window may begin in mid-word
            before = position if k else len(inside)
            after = len(inside) - position - 1 if k + 1 < len(windows) else len(inside)
            context = min(before, after)
            if word not in best or context > best[word][0]:
                best[word] = (context, k, i)
    chosen = {(k, i): word for word, (_, k, i) in best.items()}
    return [[chosen.get((k, i), -1) for i in range(len(window))] for k, window in enumerate(windows)]


class Module(TaskModule):
    auto_class = AutoModelForTokenClassification
    monitor = "f1"

    def outputs(self, micro: MicroBatch) -> Tensor:
        """Logits (T, C), of the first tokens of words; 0 at others."""
        return self.backbone.token_logits(micro, MARKED)["logits"]

    def loss(self, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        logits = self.outputs(micro)
        return self.cross_entropy(logits, micro.tokens["label"]), logits

    def target_logits(self, micro: MicroBatch, outputs: Tensor) -> list[Tensor]:
        return [outputs[micro.tokens["label"] != NO_TARGET]]

    def target_examples(self, micro: MicroBatch) -> Indices:
        is_target = (micro.tokens["label"] != NO_TARGET).cpu().numpy()
        examples: Indices = np.repeat(micro.examples, micro.lengths)[is_target]
        return examples

    def decode(self, micro: MicroBatch, outputs: Tensor) -> dict[int, dict[str, Any]]:
        return decoded_words(micro, outputs)


def decoded_words(micro: MicroBatch, logits: Tensor) -> dict[int, dict[str, Any]]:
    """Logits (T, C) -> for each example `words`: the words, the number of each one's tag, and its probability."""
    words = micro.tokens["word"]
    probability, label = torch.softmax(logits, -1).max(-1)
    example = np.repeat(micro.examples, micro.lengths)
    decoded = {}
    is_word = (words >= 0).cpu().numpy()
    cells = [x.cpu().numpy() for x in (words, label, probability)]
    for row in np.unique(micro.examples):
        mine = is_word & (example == row)
        decoded[int(row)] = {"words": [x[mine].tolist() for x in cells]}
    return decoded
