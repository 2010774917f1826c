"""Reranking: a cross-encoder reads a query and a document together, and orders the candidates of each query.

The loss of a query is the cross entropy of the softmax over its candidates to its relevant ones, all alike (ListNet,
Cao et al. 2007). Relevant documents that are not among the candidates, `missed` of them, count as not found: scores are
those of the whole chain of retrieval and reranking.

Shapes: N pairs, E queries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from research.batching.pack import MicroBatch
from research.common import compat
from research.common.errors import UserError
from research.config.schema import Config
from research.data.source import Split
from research.models.windows import runs
from research.training.datamodule import Columns, TaskData
from research.training.module import TaskModule

BEST = 10  # candidates that a prediction lists
FORMS = (
    "'documents' (a list) and 'relevant' (as many 0 and 1), a pair a row ('document' and 'label', 0 or 1), or "
    "'document' and 'negatives'"
)


class Data(TaskData):
    """Lists of candidates. Pairs of a query are joined; of `document` and `negatives` the first is relevant."""

    fields = {name: name for name in ("query", "documents", "relevant", "document", "label", "negatives", "missed")}
    optional = free = ("documents", "relevant", "document", "label", "negatives", "missed")
    gold = ()
    texts = ("query",)
    text_lists = ("documents", "negatives")
    window_columns = ("relevant",)
    metric = "retrieval"
    class_column = None
    head = ("relevance",)
    learned_names = ()
    answers_alone = False  # pairs of a query, a row each, are one list

    @property
    def inputs(self) -> list[str]:
        return ["query", "documents"]

    def score_settings(self) -> dict[str, Any]:
        return {"ranked": "candidates"}

    def collect(self, splits: Sequence[Split]) -> list[str]:
        """No labels."""
        return []

    def prepared(self, split: Split) -> Split:
        """Each query once, with `documents`, `relevant` and `missed`.

        Raises UserError for another form of rows, an empty text, and a query without a relevant document.
        """
        firsts, documents, relevant = joined_pairs(split) if "label" in split.rows.column_names else lists_of(split)
        rows = split.rows.select(firsts)
        missed = [int(count or 0) for count in rows["missed"]] if "missed" in rows.column_names else [0] * len(rows)
        for i, (row, texts, right, lost) in enumerate(zip(firsts, documents, relevant, missed, strict=True)):
            if not rows["query"][i].strip():
                raise UserError(f"{split.where(row)}: the query is empty; fill it in or drop the row.")
            if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
                raise UserError(f"{split.where(row)}: a document is empty or no text, or there is none.")
            if right is not None and not any(right) and (split.name == "train" or not lost):
                raise UserError(
                    f"{split.where(row)}: the query has no relevant document among its {len(texts)}; add it, or take "
                    "the query out"
                )
        step = hashlib.sha256(json.dumps([compat.dataset_fingerprint(split.rows), "lists"]).encode()).hexdigest()
        rows = rows.remove_columns([name for name in self.optional if name in rows.column_names])
        for name, values, kind in (
            ("documents", documents, pa.list_(pa.string())),
            ("relevant", relevant, pa.list_(pa.int64())),
            ("missed", missed, pa.int64()),
        ):
            rows = rows.add_column(name, pa.array(values, kind), new_fingerprint=f"{step[:24]}{name}")
        return replace(split, rows=rows)

    def encode(self, rows: Columns) -> Columns:
        columns: Columns = {name: [] for name in ("windows", "relevant", "targets", "cut")}
        for query, documents, relevant in zip(rows["query"], rows["documents"], rows["relevant"], strict=True):
            tokens = self.tokenizer(
                [query] * len(documents), documents, truncation=True, max_length=self.config.data.max_length,
                return_attention_mask=False,
            )  # fmt: skip
            for name in ("input_ids", "token_type_ids"):
                if name in tokens:
                    columns.setdefault(name, []).append(list(chain.from_iterable(tokens[name])))
            columns["windows"].append([len(ids) for ids in tokens["input_ids"]])
            columns["relevant"].append(relevant or [0] * len(documents))
            columns["targets"].append(1.0)
            columns["cut"].append(any(encoding.overflowing for encoding in tokens.encodings))
        return columns

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        """Candidates are named by their place in the list, from 0."""
        columns: Columns = {name: [] for name in ("gold", "prediction", "ranks", "repeats", "scores")}
        for i, relevant in enumerate(split.rows["relevant"]):
            scores = predictions[i]["scores"]
            order = np.argsort(-scores, kind="stable")
            rank = np.empty(len(order), np.int64)
            rank[order] = np.arange(1, len(order) + 1)
            right = np.flatnonzero(relevant or [])
            columns["gold"].append(None if relevant is None else right.tolist())
            columns["prediction"].append(order[:BEST].tolist())
            columns["ranks"].append(sorted(rank[right].tolist()))
            columns["repeats"].append(1)
            columns["scores"].append(scores.astype(np.float64).tolist())
        return columns


def lists_of(split: Split) -> tuple[list[int], list[Any], list[Any]]:
    """The rows, their documents, and which of them are relevant; None for a new query."""
    rows = split.rows
    names = rows.column_names
    count = list(range(len(rows)))
    if "document" in names:
        negatives = rows["negatives"] if "negatives" in names else [None] * len(rows)
        documents = [[text, *(more or ())] for text, more in zip(rows["document"], negatives, strict=True)]
        return count, documents, [[1, *[0] * (len(texts) - 1)] for texts in documents]
    if "documents" not in names or ("relevant" not in names and split.name != "input"):
        raise UserError(f"{split.origin}: rows of task rerank need a query and {FORMS}.")
    if "relevant" not in names:
        return count, rows["documents"][:], [None] * len(rows)
    for row, (texts, right) in enumerate(zip(rows["documents"], rows["relevant"], strict=True)):
        if not isinstance(right, list) or len(right) != len(texts or ()) or not set(right) <= {0, 1}:
            raise UserError(f"{split.where(row)}: 'relevant' must be a 0 or 1 for each of the documents, not {right}.")
    return count, rows["documents"][:], [[int(value) for value in right] for right in rows["relevant"]]


def joined_pairs(split: Split) -> tuple[list[int], list[Any], list[Any]]:
    """The first row of each query, its documents over all its rows, and which of them are relevant."""
    found: dict[str, tuple[int, list[Any], list[int]]] = {}
    if "document" not in split.rows.column_names:
        raise UserError(f"{split.origin}: rows of task rerank need a query and {FORMS}.")
    columns = (split.rows[name] for name in ("query", "document", "label"))
    for row, (query, document, label) in enumerate(zip(*columns, strict=True)):
        if str(label) not in ("0", "1", "True", "False", "0.0", "1.0"):
            raise UserError(f"{split.where(row)}: the label {label!r} of a pair must be 0 or 1.")
        _, documents, relevant = found.setdefault(query, (row, [], []))
        documents.append(document)
        relevant.append(int(str(label) in ("1", "True", "1.0")))
    firsts, documents_of, relevant_of = zip(*found.values(), strict=True)
    return list(firsts), list(documents_of), list(relevant_of)


class Module(TaskModule):
    auto_class = AutoModelForSequenceClassification
    monitor = "mrr"

    def __init__(self, config: Config, backbone: Any, data: Data, total_steps: int) -> None:
        super().__init__(config, backbone, data, total_steps)
        if config.optim.label_smoothing:
            raise UserError(f"task '{config.task.name}' has no classes for optim.label_smoothing; remove the key.")

    def outputs(self, micro: MicroBatch) -> Tensor:
        """Relevance of each pair, (N,)."""
        return self.backbone.sequence_logits(micro)[:, 0]

    def loss(self, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        scores = self.outputs(micro)
        lists = zip(*(each.split(runs(micro.examples)) for each in (scores, micro.sequences["relevant"])), strict=True)
        losses = [
            -(torch.log_softmax(mine, 0) * right).sum() / right.sum().clamp(min=1) for mine, right in lists
        ]  # 0 where all relevant documents are missed
        return torch.stack(losses).sum(), scores

    def target_logits(self, micro: MicroBatch, outputs: Tensor) -> list[Tensor]:
        parts = outputs.split(runs(micro.examples))
        return [torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=-torch.inf)]

    def decode(self, micro: MicroBatch, outputs: Tensor) -> dict[int, dict[str, Any]]:
        counts = runs(micro.examples)
        rows = dict.fromkeys(micro.examples.tolist())
        parts = outputs.float().cpu().split(counts)
        return {row: {"scores": part.numpy()} for row, part in zip(rows, parts, strict=True)}
