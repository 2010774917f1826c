"""Ways to cut a test set into parts: by length, by value, by quarters of numbers.

Legend: N examples, R runs, K counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from research.metrics.examples import Floats, words

MOST_VALUES = 12  # a column with more distinct values is cut into quarters, or left out where it holds no numbers

Mask = NDArray[np.bool_]  # (N,)
Cut = tuple[str, str, Mask]  # by what, the value, which examples


@dataclass(frozen=True)
class Part:
    """A part of a test set, and what the runs' examples in it count."""

    by: str
    value: str
    size: int  # examples, or what else the score is over
    score_name: str
    is_proportion: bool  # the score is the share of its examples that are right
    values: Floats  # (R, examples of the part, K)
    score: Callable[[Floats], Floats]  # sums (..., K) -> score (...)


def length_cuts(by: str, table: pa.Table, name: str) -> Iterator[Cut]:
    """Quarters by how many words a column of texts, or of lists of words, has; none where the column is missing."""
    if name in table.column_names:
        lengths = [len(x) if isinstance(x, list) else words(x or "") for x in table.column(name).to_pylist()]
        yield from quarters(f"{by} (words)", np.array(lengths, dtype=np.float64))


def column_cuts(name: str, column: pa.ChunkedArray) -> Iterator[Cut]:
    """A column of the data: by its values, or by quarters of its numbers."""
    kind, values = column.type, column.to_pylist()
    if pa.types.is_nested(kind):
        return
    if len(set(values)) > MOST_VALUES and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        yield from quarters(name, np.array([np.nan if x is None else x for x in values], dtype=np.float64))
    else:
        yield from value_cuts(name, ["" if x is None else str(x) for x in values])


def value_cuts(by: str, values: Sequence[str], most: int = MOST_VALUES) -> Iterator[Cut]:
    """One slice a value, unless there is but one or there are too many."""
    distinct = sorted(set(values))
    if 1 < len(distinct) <= most:
        array = np.array(values)
        for value in distinct:
            yield by, value, array == value


def quarters(by: str, numbers: Floats) -> Iterator[Cut]:
    """Four slices with about as many examples each; fewer where many numbers are equal."""
    known = numbers[np.isfinite(numbers)]
    if len(np.unique(known)) < 2:
        return
    edges = np.unique(np.quantile(known, (0.25, 0.5, 0.75, 1), method="lower"))
    for low, high in zip([-np.inf, *edges[:-1]], edges, strict=True):
        mask = (numbers > low) & (numbers <= high)
        first, last = numbers[mask].min(), numbers[mask].max()
        yield by, f"{first:g}" if first == last else f"{first:g} to {last:g}", mask
