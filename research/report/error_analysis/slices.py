"""Scores of parts of a test set: short and long texts, each label, rare entities, any column of the data.

Intervals are 95 %. A share of examples has Wilson's interval (1927); as the runs of one system share their examples,
the number of examples counts, not that of predictions. A score that is no such share (F1, recall of entities) has the
percentile bootstrap over the examples of the slice, all runs seeing the same resample.

Legend: N examples, R runs, K counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from research.metrics.entities import Entity, lenient_entities
from research.report.examples import Floats, words
from research.report.statistics.counts import PairedCounts, paired
from research.report.statistics.resampling import bootstrap

RESAMPLES = 1000
MOST_VALUES = 12  # a column with more distinct values is cut into quarters, or left out where it holds no numbers
MOST_LABELS = 100
LEAST_EXAMPLES = 5  # of a slice that is shown
QUESTION_WORDS = ("who", "whose", "whom", "what", "which", "when", "where", "why", "how")
CHINESE_QUESTION_WORDS = ("为什么", "什么时候", "什么", "多少", "怎么", "如何", "哪", "谁", "何", "几")
TASK_COLUMNS = {
    "id", "gold", "prediction", "probabilities", "confidence", "answer", "no_answer_score", "n_best", "text",
    "text_pair", "choices", "label", "tokens", "tags", "question", "context", "answers", "entities",
}  # fmt: skip

Mask = NDArray[np.bool_]  # (N,)
Cut = tuple[str, str, Mask]  # by what, the value, which examples


@dataclass(frozen=True)
class Slice:
    """A part of a test set and the mean score of a system's runs on it."""

    by: str
    value: str
    size: int  # examples, or entities
    metric: str
    score: float
    low: float
    high: float


def score_slices(tables: Sequence[pa.Table], train: pa.Table | None = None) -> list[Slice]:
    """The slices of one system from the tables of its runs on the same examples.

    `train`: predictions on the training split, which tell what entities were seen in training.
    """
    runs = [(str(i), table) for i, table in enumerate(tables)]
    first = tables[0]
    metric = "accuracy" if "probabilities" in first.column_names else "f1"
    counts = paired(runs, metric)
    found = [_slice(by, value, int(mask.sum()), metric, counts, mask) for by, value, mask in cuts(first)]
    if "tokens" in first.column_names:
        found += entity_slices(tables, runs, train)
    return [each for each in found if each is not None]


def _slice(by: str, value: str, size: int, metric: str, counts: PairedCounts, mask: Mask) -> Slice | None:
    """The score on the examples of the mask; None where there are too few."""
    if size < LEAST_EXAMPLES:
        return None
    part = PairedCounts([counts.ids[i] for i in np.flatnonzero(mask)], counts.values[:, mask], counts.score)
    score = float(part.metrics.mean())
    low, high = wilson(score, size) if metric == "accuracy" else _percentiles(part)
    return Slice(by, value, size, metric, score, low, high)


def wilson(share: float, size: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `size` examples."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(share * size, size, method="wilson")
    return float(low), float(high)


def _percentiles(part: PairedCounts) -> tuple[float, float]:
    replicates = bootstrap(part, RESAMPLES).mean(1)
    low, high = np.quantile(replicates, (0.025, 0.975))
    return float(low), float(high)


def cuts(table: pa.Table) -> Iterator[Cut]:
    """Every way to cut the examples that their columns allow."""
    names = table.column_names
    for name in ("text", "tokens", "question", "context"):
        if name in names:
            lengths = [len(x) if isinstance(x, list) else words(x or "") for x in table.column(name).to_pylist()]
            by = "length" if name in ("text", "tokens") else f"length of {name}"
            yield from quarters(f"{by} (words)", np.array(lengths, dtype=np.float64))
    gold = table.column("gold").to_pylist()
    if "question" in names:
        yield from _values("question word", [question_word(text) for text in table.column("question").to_pylist()])
        yield from _values("answer", ["with an answer" if texts else "without an answer" for texts in gold])
        yield from quarters(
            "length of answer (words)", np.array([words(texts[0]) if texts else np.nan for texts in gold])
        )
    elif "tokens" not in names:
        yield from _values("gold label", gold, most=MOST_LABELS)
    for name in sorted(set(names) - TASK_COLUMNS):
        yield from _column(name, table.column(name))


def _column(name: str, column: pa.ChunkedArray) -> Iterator[Cut]:
    """A column of the data that the task does not know: by its values, or by quarters of its numbers."""
    kind, values = column.type, column.to_pylist()
    if pa.types.is_nested(kind):
        return
    if len(set(values)) > MOST_VALUES and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        yield from quarters(name, np.array([np.nan if x is None else x for x in values], dtype=np.float64))
    else:
        yield from _values(name, ["" if x is None else str(x) for x in values])


def _values(by: str, values: Sequence[str], most: int = MOST_VALUES) -> Iterator[Cut]:
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


def question_word(question: str) -> str:
    """`how many`, `who`, ...: the first question word, `other` where there is none."""
    tokens = [token.strip("?,.;:!\"'()“”‘’«»¿").lower() for token in question.split()]
    for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
        if token == "how" and following in ("many", "much", "long", "old", "far"):
            return f"how {following}"
        if token in QUESTION_WORDS:
            return token
    return next((word for word in CHINESE_QUESTION_WORDS if word in question), "other")


def entity_slices(
    tables: Sequence[pa.Table], runs: list[tuple[str, pa.Table]], train: pa.Table | None
) -> list[Slice | None]:
    """NER cut by entity: F1 of each type; recall of long, rare and unseen entities."""
    ids, tokens, gold = (tables[0].column(name).to_pylist() for name in ("id", "tokens", "gold"))
    expected = [lenient_entities(tags) for tags in gold]
    sizes = Counter(entity[0] for row in expected for entity in row)
    slices = []
    for kind, size in sorted(sizes.items()):
        counts = paired(runs, f"f1/{kind}")
        slices.append(_slice("entity type", kind, size, "f1", counts, np.any(counts.values > 0, axis=(0, 2))))
    found = [[set(lenient_entities(tags)) for tags in table.column("prediction").to_pylist()] for table in tables]
    for by, classes in entity_classes(tokens, expected, train):
        for value in sorted({each for row in classes for each in row}):
            values = np.stack([_recall_counts(value, classes, expected, run) for run in found])  # (R, N, 2)
            counts = PairedCounts(ids, values, lambda sums: sums[..., 0] / np.maximum(sums[..., 1], 1))
            mask = values[0, :, 1] > 0
            slices.append(_slice(by, value, int(values[0, :, 1].sum()), "recall", counts, mask))
    return slices


def entity_classes(
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


def _surfaces(tokens: Sequence[str], entities: Sequence[Entity]) -> list[str]:
    return [" ".join(tokens[start:end]).lower() for _, start, end in entities]


def _length_class(length: int) -> str:
    return str(length) if length < 4 else "4 or more"


def _frequency_class(count: int) -> str:
    return "1" if count == 1 else "2 to 4" if count < 5 else "5 or more"


def _recall_counts(value: str, classes: list[list[str]], expected: Any, found: list[set[Entity]]) -> Floats:
    """Of the gold entities of a class, how many were found and how many there are, per sentence (N, 2)."""
    rows = []
    for kinds, gold, predicted in zip(classes, expected, found, strict=True):
        chosen = [entity for entity, kind in zip(gold, kinds, strict=True) if kind == value]
        rows.append((sum(entity in predicted for entity in chosen), len(chosen)))
    return np.array(rows, dtype=np.float64)
