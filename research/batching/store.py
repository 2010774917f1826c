"""Encoded examples of a split, memory-mapped: what the plan measures and what micro-batches are cut from.

An example is one row: its windows end to end, each a sequence the encoder sees on its own. Columns are
    token columns    list of T integers: `input_ids` and whatever else a task says of each token
    `windows`        list of W integers: tokens of each window
    window columns   list of W integers: what a task says of each window
    `targets`        a number: the weight of this example's targets in the loss's denominator
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from research.batching.plan import Indices

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


class Ragged:
    """A column of lists read from memory-mapped Arrow chunks without a Python list per row."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.values = [chunk.values.to_numpy() for chunk in column.chunks]
        offsets = [chunk.offsets.to_numpy() for chunk in column.chunks]
        self.first_row = np.cumsum([0, *map(len, column.chunks)])
        self.starts = np.concatenate([np.zeros(0, np.int64), *(o[:-1] for o in offsets)])
        self.ends = np.concatenate([np.zeros(0, np.int64), *(o[1:] for o in offsets)])

    def lengths(self) -> Indices:
        """Number of values in each row."""
        lengths: Indices = self.ends - self.starts
        return lengths

    def rows(self, rows: Indices) -> list[NDArray[Any]]:
        """The values of these rows, one array each."""
        chunks = np.searchsorted(self.first_row, rows, side="right") - 1
        spans = zip(chunks.tolist(), self.starts[rows].tolist(), self.ends[rows].tolist(), strict=True)
        return [self.values[chunk][start:end] for chunk, start, end in spans]


class Store:
    """The encoded examples of one split."""

    def __init__(self, encoded: Dataset, token_columns: Sequence[str], window_columns: Sequence[str]) -> None:
        table = encoded.data.table
        self.token_columns = {name: Ragged(table.column(name)) for name in token_columns}
        self.window_columns = {name: Ragged(table.column(name)) for name in window_columns}
        self.windows = Ragged(table.column("windows"))
        self.tokens: Indices = self.token_columns["input_ids"].lengths()  # of each example
        self.targets = table.column("targets").to_numpy().astype(np.float64)

    def __len__(self) -> int:
        return len(self.tokens)

    def vocabulary(self, rows: Indices) -> Indices:
        """The distinct token ids of these examples, sorted."""
        ids = self.token_columns["input_ids"].rows(rows)
        return np.unique(np.concatenate(ids)).astype(np.int64)

    def _label_rows(self, column: str) -> list[NDArray[Any]]:
        columns = {**self.token_columns, **self.window_columns}
        return [labels[labels >= 0] for labels in columns[column].rows(np.arange(len(self)))]

    def count(self, column: str, classes: int) -> NDArray[np.float64]:
        """How often each class is a target, (C,)."""
        labels = np.concatenate(self._label_rows(column))
        return np.bincount(labels, minlength=classes).astype(np.float64)

    def weigh(self, column: str, weights: NDArray[np.float64]) -> None:
        """Let each target count by the weight of its class."""
        self.targets = np.array([weights[labels].sum() for labels in self._label_rows(column)])
