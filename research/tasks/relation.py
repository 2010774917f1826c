"""Relation classification: which relation holds between two marked entities of a text.

The entities are marked in the text by punctuation, `@ the entity @` and `# the entity #` (Zhou & Chen 2022), which
every vocabulary has. `typed` marks name the types too, `@ * person * the entity @` and `# ^ city ^ the entity #`: a
type that training never showed is read as its words, and an entity without one has the plain mark. The relation is read
off the first tokens of both marked entities side by side (Baldini Soares et al. 2019). A head of 2 C outputs on each
token, of which the first C count at the first entity and the last C at the second, is a linear layer on their
concatenation.

Of a text longer than the model its surroundings are cut, never an entity.

Shapes: T tokens, N sequences, C labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from transformers import AutoModelForTokenClassification

from research.batching.pack import MicroBatch
from research.batching.read_tokens import MARKED
from research.batching.store import INPUT, Store
from research.common.errors import UserError
from research.config.component import key
from research.data.checks import check_values
from research.data.columns import has_column
from research.data.entity_pairs import with_pairs
from research.data.source import Split
from research.tasks.classification import Data as Classification
from research.tasks.classification import Module as ClassificationModule
from research.training.datamodule import Columns

MARKS = {"e1": "@", "e2": "#"}
TYPE_MARKS = {"e1": "*", "e2": "^"}
_TAGGED = {name: re.compile(rf"<{name}>(.*?)</{name}>", re.DOTALL) for name in MARKS}

Span = tuple[int, int]  # first character and end, the end exclusive


@dataclass
class Keys:
    other: str = key("Other", "label of no relation, which the scores leave out")
    typed: bool = key(False, "the marks name the types of the entities (columns `e1_type`, `e2_type`, or `entities`)")
    pairs: Literal["all", "given"] = key("all", "of documents with entities: all pairs, or those with a relation")


class Data(Classification):
    """Texts with `<e1>..</e1>` and `<e2>..</e2>` in them, or with the columns e1 and e2: [first character, end].

    Or documents with `entities` and `relations` between them, of which each pair is an example.
    """

    fields = {name: name for name in ("text", "e1", "e2", "e1_type", "e2_type", "entities", "relations", "label")}
    free = ("e1", "e2", "entities", "relations")
    optional = (*free, "e1_type", "e2_type", "label")  # `prepared` asks for labels
    texts = ("text",)
    augmented = ()  # the entities are places in the text
    token_columns = ("input_ids", "token_type_ids", "mark")
    metric = "relations"
    long = ()  # the entities decide what is cut

    @property
    def head(self) -> Sequence[str]:
        """Each label at each entity: see the head of this file."""
        return [f"{label} at {name}" for name in MARKS for label in self.labels]

    def score_settings(self) -> dict[str, Any]:
        return {"labels": self.labels, "other": self.config.task.other}

    def prepared(self, split: Split) -> Split:
        """Documents as a row for each pair. Raises UserError for rows without a label, and for missing types."""
        if "entities" in split.rows.column_names:
            split = with_pairs(split, self.config.task.other, self.config.task.pairs == "all")
        elif split.name != "input":
            if "label" not in split.rows.column_names:
                has_column(split, "label", self.config.data.columns.get("label", "label"), ())
            check_values(split, "label", may_be_null=False, is_free=False)
            if self.config.task.pairs != "all":
                raise UserError(f"task.pairs={self.config.task.pairs}: {split.origin} has no 'entities' to pair.")
        if self.config.task.typed and not {"e1_type", "e2_type"} <= set(split.rows.column_names):
            raise UserError(f"{split.origin}: task.typed needs the types of both entities: e1_type and e2_type.")
        return split

    def encode(self, rows: Columns) -> Columns:
        """`mark`: 1 at the first token of the first entity's mark, 2 at the second's, else 0."""
        texts, places = zip(*(self._marked(rows, i) for i in range(len(rows["text"]))), strict=True)
        tokens = self.tokenizer(list(texts), return_attention_mask=False)
        kept = {name: tokens[name] for name in self.token_columns if name in tokens}
        marks = []
        for i, (first, second) in enumerate(places):
            row = [0] * len(tokens["input_ids"][i])
            row[tokens.char_to_token(i, first)], row[tokens.char_to_token(i, second)] = 1, 2
            marks.append(row)
        windows = [[len(row)] for row in tokens["input_ids"]]
        return {**kept, "mark": marks, "windows": windows, **self.targets(rows, windows)}

    def marked_store(self, store: Store) -> Store:
        store.mark(INPUT, lambda tokens: tokens["mark"].numpy() > 0)
        return store

    def _marked(self, rows: Columns, i: int) -> tuple[str, tuple[int, int]]:
        """The text with its marks, cut to the model's length, and where the marks of both entities begin."""
        where = f"line {rows['__line__'][i]}" if "__line__" in rows else f"example {rows['id'][i]}"
        given = {name: rows[name][i] for name in MARKS if name in rows and rows[name][i] is not None}
        text, first, second = entities_of(rows["text"][i], given, where)
        types = {name: rows[f"{name}_type"][i] for name in MARKS} if self.config.task.typed else {}
        limit = self.config.data.max_length - self.tokenizer.num_special_tokens_to_add()
        reach = len(text)  # characters kept on either side of each entity
        while True:
            marked, places = with_marks(text, first, second, reach, types)
            count = len(self.tokenizer(marked, add_special_tokens=False, return_attention_mask=False)["input_ids"])
            if count <= limit:
                return marked, places
            if reach == 0:
                raise UserError(
                    f"{where}: the two entities alone have {count} tokens, more than data.max_length leaves ({limit}); "
                    "raise it or take the example out."
                )
            reach = min(reach, len(text)) * 3 // 4


def entities_of(text: str, given: dict[str, Any], where: str) -> tuple[str, Span, Span]:
    """The plain text and the characters of both entities: `given` as columns, or marked in the text.

    Raises UserError unless there is one of each, inside the text, apart from the other.
    """
    spans = dict(given)
    if not given:
        tagged = {name: pattern.findall(text) for name, pattern in _TAGGED.items()}
        if any(len(found) != 1 for found in tagged.values()):
            raise UserError(
                f"{where}: the text must hold one <e1>...</e1> and one <e2>...</e2>, or the columns e1 and e2 say "
                'where they are, as in {"e1": [4, 9], "e2": [15, 20]}.'
            )
        if any(f"<{name}>" in found[0] for found in tagged.values() for name in MARKS):
            raise UserError(f"{where}: <e1>...</e1> and <e2>...</e2> overlap; mark two entities that are apart.")
        for name in sorted(MARKS, key=lambda name: text.index(f"<{name}>")):
            start = text.index(f"<{name}>")
            text = text.replace(f"<{name}>", "").replace(f"</{name}>", "")
            spans[name] = [start, start + len(tagged[name][0])]
    for name in MARKS:
        span = spans.get(name)
        if not isinstance(span, list) or len(span) != 2 or not 0 <= span[0] < span[1] <= len(text):
            raise UserError(
                f"{where}: '{name}' is {span}, not [first character, end] of a part of the text, which has "
                f"{len(text)} characters; correct it."
            )
    first, second = (tuple(spans[name]) for name in MARKS)
    if max(first[0], second[0]) < min(first[1], second[1]):
        raise UserError(
            f"{where}: the entities {list(first)} and {list(second)} share characters; mark two that are apart."
        )
    return text, first, second


def with_marks(
    text: str, first: Span, second: Span, reach: int, types: Mapping[str, str | None] | None = None
) -> tuple[str, tuple[int, int]]:
    """The text with a mark before and after each entity, its type in the first, and where the marks of both begin.

    What is farther than `reach` characters from both entities is left out, an ellipsis in its place between them.
    """
    order = sorted([(first, "e1"), (second, "e2")])
    (left, _), (right, _) = order
    gap = text[left[1] : right[0]]
    if len(gap) > 2 * reach:
        gap = f"{gap[:reach]} … {gap[len(gap) - reach :]}"
    pieces = [text[max(0, left[0] - reach) : left[0]], gap, text[right[1] : right[1] + reach]]
    marked, starts = pieces[0], {}
    for (span, name), after in zip(order, pieces[1:], strict=True):
        marked += " "
        starts[name] = len(marked)
        kind = readable((types or {}).get(name))
        opening = f"{MARKS[name]} {TYPE_MARKS[name]} {kind} {TYPE_MARKS[name]}" if kind else MARKS[name]
        marked += f"{opening} {text[slice(*span)]} {MARKS[name]} {after}"
    return marked, (starts["e1"], starts["e2"])


def readable(kind: str | None) -> str:
    """A type as words: `STATE_OR_PROVINCE` -> `state or province`."""
    return " ".join((kind or "").replace("_", " ").replace("-", " ").split()).lower()


class Module(ClassificationModule):
    auto_class = AutoModelForTokenClassification
    monitor = "f1"

    def outputs(self, micro: MicroBatch) -> Tensor:
        """Logits (N, C)."""
        logits = self.backbone.token_logits(micro, MARKED)["logits"]  # (T, 2C)
        mark, labels = micro.tokens["mark"], len(self.data.labels)
        return logits[mark == 1, :labels] + logits[mark == 2, labels:]
