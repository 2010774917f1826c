"""Classes of gold entities whose recall is reported: by length, by frequency, by having been seen in training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from research.metrics.examples import Floats
from research.metrics.tags import Entity, lenient_entities


def classes_of_entities(
    tokens: Sequence[Sequence[str]], expected: Sequence[Sequence[Entity]], train: pa.Table | None
) -> Iterator[tuple[str, list[list[str]]]]:
    """Ways to sort gold entities into classes: by what, and the class of each entity of each sentence."""
    surfaces = [_surfaces(*row) for row in zip(tokens, expected, strict=True)]
    yield "entity length (words)", [[_length_class(end - start) for _, start, end in row] for row in expected]
    seen = Counter(surface for row in surfaces for surface in row)
    yield "occurrences of the entity in this split", [[_frequency_class(seen[s]) for s in row] for row in surfaces]
    if train is not None:
        columns = zip(*(train.column(name).to_pylist() for name in ("tokens", "gold")), strict=True)
        known = {surface for row, tags in columns for surface in _surfaces(row, lenient_entities(tags))}
        yield "entity in training", [["seen" if s in known else "unseen" for s in row] for row in surfaces]


def recall_counts(
    value: str,
    classes: Sequence[Sequence[str]],
    expected: Sequence[Sequence[Entity]],
    found: Sequence[set[Entity]],
) -> Floats:
    """Of the gold entities of a class, how many were found and how many there are, per sentence (N, 2)."""
    rows = []
    for kinds, gold, predicted in zip(classes, expected, found, strict=True):
        chosen = [entity for entity, kind in zip(gold, kinds, strict=True) if kind == value]
        rows.append((sum(entity in predicted for entity in chosen), len(chosen)))
    return np.array(rows, dtype=np.float64)


def _surfaces(tokens: Sequence[str], entities: Sequence[Entity]) -> list[str]:
    return [" ".join(tokens[start:end]).lower() for _, start, end in entities]


def _length_class(length: int) -> str:
    return str(length) if length < 4 else "4 or more"


def _frequency_class(count: int) -> str:
    return "1" if count == 1 else "2 to 4" if count < 5 else "5 or more"
