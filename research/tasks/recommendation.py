"""Recommendation from text: the next item of a user, from the texts of those before, on the core of `matching`.

The query is the user's last items, the newest first; the documents are items. An evaluation ranks the whole catalogue
but for what the user had before: the items of all splits and those of `task.items`. An item that training never showed
(cold) is ranked by its text like any other.

Shapes: N sequences, W width of the model, I items of the catalogue.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from research.batching.pack import MicroBatch
from research.batching.plan import Indices
from research.common import compat
from research.common.errors import UserError
from research.config.component import at_least, key
from research.data.opening import open_split
from research.data.source import Split
from research.tasks import matching
from research.tasks.matching import BEST, DOCUMENT, QUERY
from research.training.datamodule import Columns, TaskData


@dataclass
class Keys(matching.Keys):
    last: int = key(10, "items of the history that are read, the newest first", at_least(1))
    items: str | None = key(None, "file of more items, column `item`, such as new ones that no user had yet")


class Data(matching.Data):
    """Rows of `history`, a list of the items' texts, the oldest first, and `item`, the one that came next."""

    fields = {"history": "history", "item": "item"}
    optional = free = ()
    gold = ("item",)
    texts = ("item",)
    text_lists = ("history",)
    metric = "recommendation"
    learned_names = ("catalogue", "popularity")
    trains = of_train = False  # is this the training; is the split that is encoded the one to train on?
    catalogue: list[str]
    popularity: list[int]  # how often each item occurs in the training data

    def prepared(self, split: Split) -> Split:
        """Raises UserError for an empty item and an empty history."""
        for row, history in enumerate(split.rows["history"]):
            if not history or not all(text.strip() for text in history):
                raise UserError(f"{split.where(row)}: the history is empty, or an item in it is.")
        for row, item in enumerate(split.rows["item"] if "item" in split.rows.column_names else ()):
            if item is not None and not item.strip():
                raise UserError(f"{split.where(row)}: the item is empty.")
        return split

    def collect(self, splits: Sequence[Split]) -> list[str]:
        """No labels; the catalogue of all items, and how often each occurs in training."""
        counts, found = Counter[str](), set[str]()
        for split in splits:
            items = [text for history in split.rows["history"] for text in history] + split.rows["item"][:]
            found |= set(items)
            if split.name == "train":
                counts.update(items)
        if path := self.config.task.items:
            more = open_split(name="items", value=path, hub_name=None, hub_config=None, hub_revision=None,
                              fields={"item": "item"})  # fmt: skip
            found |= {text for text in more.rows["item"] if text.strip()}
        self.catalogue = sorted(found)
        self.popularity = [counts[item] for item in self.catalogue]
        return []

    def open(self, learned: Mapping[str, Any] | None = None, only: str | None = None) -> None:
        self.trains = learned is None
        super().open(learned, only)

    def encode_reads(self) -> list[Any]:
        return [self.of_train]

    def make_store(self, split: Split) -> Any:
        """Encoded queries and items; where a split is ranked, its rows share the catalogue out among them."""
        self.of_train = self.trains and split.name == "train"
        count, rows = len(split.rows), split.rows
        items = rows["item"][:] if "item" in rows.column_names else [None] * count
        shares = [] if self.of_train else self.shares(count)
        step = hashlib.sha256(json.dumps([compat.dataset_fingerprint(rows), self.of_train]).encode()).hexdigest()[:24]
        for name, values, kind in (
            (QUERY, [self.query_of(history) for history in rows["history"]], pa.string()),
            (DOCUMENT, [item or self.catalogue[0] for item in items], pa.string()),
            ("negatives", [[self.catalogue[i] for i in share] for share in shares] or [[]] * count,
             pa.list_(pa.string())),
        ):  # fmt: skip
            if name in rows.column_names:
                rows = rows.remove_columns(name)
            rows = rows.add_column(name, pa.array(values, kind), new_fingerprint=f"{step}{name}")
        return TaskData.make_store(self, replace(split, rows=rows))

    def query_of(self, history: Sequence[str]) -> str:
        return "; ".join(reversed(history[-self.config.task.last :]))

    def shares(self, rows: int) -> list[range]:
        """Which items of the catalogue each row brings along."""
        return [range(i, len(self.catalogue), rows) for i in range(rows)]

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        """`prediction`: the best items that the user has not had."""
        place = {item: i for i, item in enumerate(self.catalogue)}
        count = len(split.rows)
        vectors = np.zeros((len(place), predictions[0][QUERY].shape[-1]), np.float32)  # (I, W)
        for row, share in enumerate(self.shares(count)):
            vectors[list(share)] = predictions[row][DOCUMENT][1:]
        golds = split.rows["item"][:] if "item" in split.rows.column_names else [None] * count
        popularity = np.array(self.popularity)
        columns: Columns = {name: [] for name in ("gold", "prediction", "rank", "popularity_rank", "cold")}
        for row, (history, gold) in enumerate(zip(split.rows["history"], golds, strict=True)):
            own = place.get(gold)
            seen = [place[item] for item in history if item in place]
            others = [i for i in seen if i != own]  # the item to find is ranked, even where it was seen before
            scores = vectors @ predictions[row][QUERY]  # (I,)
            frequency = popularity.astype(np.float64)
            scores[others], frequency[others] = -np.inf, -1.0
            columns["rank"].append(None if own is None else rank_of(scores, own))
            columns["popularity_rank"].append(None if own is None else rank_of(frequency, own))
            scores[seen] = -np.inf
            best = [i for i in np.argsort(-scores, kind="stable")[:BEST] if np.isfinite(scores[i])]
            columns["gold"].append(gold)
            columns["prediction"].append([self.catalogue[i] for i in best])
            columns["cold"].append(own is None or self.popularity[own] == 0)
        return columns


def rank_of(scores: np.ndarray, own: int) -> int:
    """The place (from 1) of one item; of equal ones the first of the catalogue comes first."""
    return int(1 + (scores > scores[own]).sum() + (scores[:own] == scores[own]).sum())


class Module(matching.Module):
    monitor = "ndcg_10"

    def outputs(self, micro: MicroBatch) -> dict[str, tuple[Tensor, Indices]]:  # type: ignore[override]
        """Vectors of length 1 by stream, and the examples they are of."""
        return {name: (F.normalize(made, dim=1), rows) for name, (made, rows) in self.embed(micro).items()}

    def loss(self, micro: MicroBatch) -> tuple[Tensor, Any]:
        found = self.outputs(micro)
        (queries, rows), (items, owners) = found[QUERY], found[DOCUMENT]
        first = np.unique(owners, return_index=True)[1]  # an example's own item comes before those it shares
        order = np.argsort(rows, kind="stable")
        own = items[torch.from_numpy(first).to(items.device)]
        return (1 - (queries[torch.from_numpy(order).to(items.device)] * own).sum(dim=1)).sum(), found

    def decode(self, micro: MicroBatch, outputs: Any) -> dict[int, dict[str, Any]]:
        (queries, rows), (items, owners) = ((made.cpu().numpy(), of) for made, of in outputs.values())
        return {int(row): {QUERY: queries[i], DOCUMENT: items[owners == row]} for i, row in enumerate(rows)}
