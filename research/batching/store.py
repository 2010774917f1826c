"""Encoded examples of a split, memory-mapped: what the plan measures and what micro-batches are cut from.

An example is one row: its windows end to end, each a sequence the model sees on its own. Columns are
    token columns    list of T integers: `input_ids` and whatever else a task says of each token
    `windows`        list of W integers: tokens of each window
    window columns   list of W integers: what a task says of each window
    `targets`        a number: the weight of this example's targets in the loss's denominator
A task with several streams of tokens names each in front of its columns: `source.input_ids`, `source.windows`,
`target.input_ids`, `target.windows`, `target.label`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from research.batching.plan import Indices

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from research.batching.features import Features
    from research.batching.read_tokens import Mask


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

    def contiguous(self) -> Iterator[NDArray[Any]]:
        """All values in order, in pieces."""
        for chunk, (first, end) in enumerate(pairwise(self.first_row.tolist())):
            if end > first:
                yield self.values[chunk][self.starts[first] : self.ends[end - 1]]

    def flat(self) -> NDArray[Any]:
        """All values in order."""
        return np.concatenate(list(self.contiguous()))

    def with_values(self, values: NDArray[Any]) -> Ragged:
        """Rows of the same lengths with these values, in order."""
        lengths, given = self.lengths(), copy.copy(self)
        given.values, given.first_row = [values], np.array([0, len(lengths)])
        given.ends = np.cumsum(lengths)
        given.starts = given.ends - lengths
        return given

    def rows(self, rows: Indices) -> list[NDArray[Any]]:
        """The values of these rows, one array each."""
        chunks = np.searchsorted(self.first_row, rows, side="right") - 1
        spans = zip(chunks.tolist(), self.starts[rows].tolist(), self.ends[rows].tolist(), strict=True)
        return [self.values[chunk][start:end] for chunk, start, end in spans]


def end_to_end(columns: Sequence[Ragged | int]) -> Ragged:
    """Columns one after the other; a number stands for as many rows without values."""
    joint = Ragged.__new__(Ragged)
    joint.values, starts, ends, sizes = [], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [0]
    for column in columns:
        if isinstance(column, int):
            joint.values.append(np.zeros(0, np.int64))
            starts.append(np.zeros(column, np.int64))
            ends.append(np.zeros(column, np.int64))
            sizes.append(column)
        else:
            joint.values += column.values
            starts.append(column.starts)
            ends.append(column.ends)
            sizes += np.diff(column.first_row).tolist()
    joint.starts, joint.ends, joint.first_row = np.concatenate(starts), np.concatenate(ends), np.cumsum(sizes)
    return joint


def constant(windows: Ragged, value: int) -> Ragged:
    """A column with one value for each window."""
    counts = windows.lengths()
    column = Ragged.__new__(Ragged)
    column.values, column.first_row = [np.full(counts.sum(), value, np.int64)], np.array([0, len(counts)])
    column.ends = np.cumsum(counts)
    column.starts = column.ends - counts
    return column


INPUT, SOURCE, TARGET = "input", "source", "target"  # streams: the only one; what a decoder's target attends to
NO_TARGET = -100  # in the place of a class, where there is nothing to learn


@dataclass
class StreamColumns:
    """The columns of one stream of a store."""

    windows: Ragged
    tokens: dict[str, Ragged] = field(default_factory=dict)
    sequences: dict[str, Ragged] = field(default_factory=dict)
    marked: Callable[[dict[str, Tensor]], Mask] | None = None  # token columns, (T,) each -> (T,) which tokens are read
    features: Features | None = None  # what frozen layers put out, if it is given to the model


def stream_and_name(column: str) -> tuple[str, str]:
    """`target.label` -> ("target", "label"); `label` -> ("input", "label")."""
    stream, _, name = column.rpartition(".")
    return stream or INPUT, name


class Store:
    """The encoded examples of one split."""

    def __init__(self, table: pa.Table, token_columns: Sequence[str], window_columns: Sequence[str]) -> None:
        self.columns = {name: Ragged(table.column(name)) for name in (*token_columns, *window_columns)}
        self.streams: dict[str, StreamColumns] = {}
        for column, values in self.columns.items():
            stream, name = stream_and_name(column)
            if stream not in self.streams:
                windows = table.column(column.removesuffix(name) + "windows")
                self.streams[stream] = StreamColumns(Ragged(windows))
            mine = self.streams[stream]
            (mine.tokens if column in token_columns else mine.sequences)[name] = values
        lengths = [stream.tokens["input_ids"].lengths() for stream in self.streams.values()]
        self.stream_tokens: Indices = np.stack(lengths, axis=1)  # (examples, streams)
        self.tokens: Indices = self.stream_tokens.sum(axis=1)  # of each example
        self.targets = table.column("targets").to_numpy().astype(np.float64)

    def mark(self, stream: str, marked: Callable[[dict[str, Tensor]], Mask]) -> None:
        """Say which tokens of a stream the task reads the outputs of."""
        self.streams[stream].marked = marked

    def with_features(self, features: dict[str, Features]) -> Store:
        """The same store, of whose streams the model gets these."""
        given = copy.copy(self)
        given.streams = {name: replace(stream, features=features[name]) for name, stream in self.streams.items()}
        return given

    def with_values(self, values: dict[str, NDArray[Any]]) -> Store:
        """The same store, of one stream, with other values in these columns."""
        given, [(name, stream)] = copy.copy(self), self.streams.items()
        given.__dict__.pop("digest", None)
        changed = {column: self.columns[column].with_values(new) for column, new in values.items()}
        given.columns = self.columns | changed
        tokens, sequences = (
            {n: changed.get(n, old) for n, old in each.items()} for each in (stream.tokens, stream.sequences)
        )
        given.streams = {name: replace(stream, tokens=tokens, sequences=sequences)}
        return given

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def digest(self) -> str:
        """xxh3 of all that the model is given: equal for equal examples, however they lie in files."""
        digest = xxhash.xxh3_128()
        windows = {f"{name}.windows": stream.windows for name, stream in self.streams.items()}
        for name, column in sorted({**self.columns, **windows}.items()):
            digest.update(f"{name}\n".encode() + column.lengths().astype(np.int64).tobytes())
            for values in column.contiguous():
                digest.update(np.ascontiguousarray(values, dtype=np.int64).data)
        return digest.hexdigest()

    def vocabulary(self, rows: Indices) -> Indices:
        """The distinct token ids of these examples, sorted."""
        ids = [ids for stream in self.streams.values() for ids in stream.tokens["input_ids"].rows(rows)]
        return np.unique(np.concatenate(ids)).astype(np.int64)

    def _label_rows(self, column: str) -> list[NDArray[Any]]:
        return [labels[labels >= 0] for labels in self.columns[column].rows(np.arange(len(self)))]

    def count(self, column: str, classes: int) -> NDArray[np.float64]:
        """How often each class is a target, (C,)."""
        labels = np.concatenate(self._label_rows(column))
        return np.bincount(labels, minlength=classes).astype(np.float64)

    def weigh(self, column: str, weights: NDArray[np.float64]) -> None:
        """Let each target count by the weight of its class."""
        self.targets = np.array([weights[labels].sum() for labels in self._label_rows(column)])
