"""Scores of parts of a test set: short and long texts, each label, rare entities, any column of the data.

Intervals are 95 %. A share of examples has Wilson's interval (1927); as the runs of one system share their examples,
the number of examples counts, not that of predictions. A score that is no such share (F1, recall of entities) has the
percentile bootstrap over examples, each resample drawn from the whole test set and seen by all runs alike.

Legend: N examples, R runs, S slices, K counts, B resamples.
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
from research.report.examples import Examples, Floats, ratio, words

RESAMPLES = 1000
MOST_VALUES = 12  # a column with more distinct values is cut into quarters, or left out where it holds no numbers
LEAST_EXAMPLES = 5  # of a slice that is shown
QUESTION_WORDS = ("who", "whose", "whom", "what", "which", "when", "where", "why", "how")
TASK_COLUMNS = {
    "id", "gold", "prediction", "probabilities", "confidence", "answer", "no_answer_score", "n_best", "text",
    "text_pair", "choices", "label", "tokens", "tags", "question", "context", "answers", "entities",
}  # fmt: skip

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Slice:
    """A part of a test set: `by` what it was cut, its value, and the score with its interval."""

    by: str
    value: str
    size: int
    metric: str
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class _Part:
    by: str
    value: str
    size: int
    metric: str
    counts: Floats  # (R, N, K)


def analyse(tables: Sequence[pa.Table], examples: Sequence[Examples], train: pa.Table | None = None) -> list[Slice]:
    """The slices of one system from the tables of its runs, which hold the same examples in the same order.

    `train`: predictions of the training split, which say what entities the system has seen in training.
    """
    parts = [
        _Part(by, value, int(mask.sum()), examples[0].metric, np.stack([run.counts * mask[:, None] for run in examples]))
        for by, value, mask in example_masks(tables[0], examples[0])
        if LEAST_EXAMPLES <= mask.sum()
    ]
    if "tags" in tables[0].column_names or "tokens" in tables[0].column_names:
        parts += [part for part in entity_parts(tables, train) if part.size >= LEAST_EXAMPLES]
    intervals = _intervals(parts)
    return [
        Slice(part.by, part.value, part.size, part.metric, float(_mean_ratio(part.counts.sum(1))), low, high)
        for part, (low, high) in zip(parts, intervals, strict=True)
    ]


def example_masks(table: pa.Table, examples: Examples) -> Iterator[tuple[str, str, Mask]]:
    """Cuts of the examples: (by what, value, who belongs to it)."""
    names = table.column_names
    for name, unit in (("text", "words"), ("tokens", "words"), ("question", "words"), ("context", "words")):
        if name in names:
            column = table.column(name).to_pylist()
            lengths = [len(x) if isinstance(x, list) else words(x or "") for x in column]
            by = "length" if name in ("text", "tokens") else f"length of {name}"
            yield from _quarters(f"{by} ({unit})", np.array(lengths, dtype=np.float64))
    if "question" in names:
        yield from _values("question word", [question_word(text) for text in table.column("question").to_pylist()])
        gold = table.column("gold").to_pylist()
        yield from _values("answer", ["with an answer" if texts else "without an answer" for texts in gold])
        answered = np.array([words(texts[0]) if texts else np.nan for texts in gold])
        yield from _quarters("length of answer (words)", answered)
    elif "tokens" not in names:
        yield from _values("gold label", examples.gold, most=100)
    for name in sorted(set(names) - TASK_COLUMNS):
        yield from _column(name, table.column(name))


def _column(name: str, column: pa.ChunkedArray) -> Iterator[tuple[str, str, Mask]]:
    """A column of the data that the task does not know: by its values, or by quarters of its numbers."""
    kind, values = column.type, column.to_pylist()
    if pa.types.is_nested(kind):
        return
    if len(set(values)) > MOST_VALUES and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        yield from _quarters(name, np.array([np.nan if x is None else x for x in values], dtype=np.float64))
    else:
        yield from _values(name, ["" if x is None else str(x) for x in values])


def _values(by: str, values: Sequence[str], most: int = MOST_VALUES) -> Iterator[tuple[str, str, Mask]]:
    """One slice a value, unless there is but one or there are too many."""
    distinct = sorted(set(values))
    if 1 < len(distinct) <= most:
        array = np.array(values)
        for value in distinct:
            yield by, value, array == value


def _quarters(by: str, numbers: Floats) -> Iterator[tuple[str, str, Mask]]:
    """Four slices with about as many examples each; fewer where many numbers are equal."""
    known = numbers[np.isfinite(numbers)]
    if len(np.unique(known)) < 2:
        return
    edges = np.unique(np.quantile(known, (0, 0.25, 0.5, 0.75, 1), method="lower"))
    for low, high in zip([-np.inf, *edges[1:-1]], edges[1:], strict=True):
        mask = (numbers > low) & (numbers <= high)
        if mask.any():
            first, last = numbers[mask].min(), numbers[mask].max()
            yield by, f"{first:g}" if first == last else f"{first:g} to {last:g}", mask


def question_word(question: str) -> str:
    """`how many`, `who`, ...: the first question word, `other` where there is none."""
    tokens = [token.strip("?,.;:!\"'()").lower() for token in question.split()]
    for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
        if token == "how" and following in ("many", "much", "long", "old", "far"):
            return f"how {following}"
        if token in QUESTION_WORDS:
            return token
    return "other"


def entity_parts(tables: Sequence[pa.Table], train: pa.Table | None) -> Iterator[_Part]:
    """NER cut by entity: F1 of each type; recall of long, rare and unseen entities."""
    tokens, gold = (tables[0].column(name).to_pylist() for name in ("tokens", "gold"))
    expected = [lenient_entities(tags) for tags in gold]
    found = [[set(lenient_entities(tags)) for tags in table.column("prediction").to_pylist()] for table in tables]
    for kind in sorted({entity[0] for row in expected for entity in row}):
        counts = np.stack([_type_counts(kind, expected, run) for run in found])
        yield _Part("entity type", kind, int(counts[0, :, 2].sum()), "f1", counts)
    keys: list[tuple[str, Any]] = [("entity length (words)", lambda entity, _: _length_class(entity[2] - entity[1]))]
    seen = Counter(surface for row in zip(tokens, expected, strict=True) for surface in _surfaces(*row))
    keys.append(("occurrences of the entity in this split", lambda _, surface: _frequency_class(seen[surface])))
    if train is not None:
        columns = zip(*(train.column(name).to_pylist() for name in ("tokens", "gold")), strict=True)
        known = {surface for row, tags in columns for surface in _surfaces(row, lenient_entities(tags))}
        keys.append(("entity in training", lambda _, surface: "seen" if surface in known else "unseen"))
    for by, key in keys:
        classes = [
            [key(entity, surface) for entity, surface in zip(row, _surfaces(words, row), strict=True)]
            for words, row in zip(tokens, expected, strict=True)
        ]
        for value in sorted({each for row in classes for each in row}):
            counts = np.stack([_recall_counts(value, classes, expected, run) for run in found])
            yield _Part(by, value, int(counts[0, :, 1].sum()), "recall", counts)


def _surfaces(tokens: Sequence[str], entities: Sequence[Entity]) -> list[str]:
    return [" ".join(tokens[start:end]).lower() for _, start, end in entities]


def _length_class(length: int) -> str:
    return str(length) if length < 4 else "4 or more"


def _frequency_class(count: int) -> str:
    return "1" if count == 1 else "2 to 4" if count < 5 else "5 or more"


def _type_counts(kind: str, expected: list[list[Entity]], found: list[set[Entity]]) -> Floats:
    rows = [({e for e in gold if e[0] == kind}, {e for e in run if e[0] == kind}) for gold, run in zip(expected, found)]
    return np.array([(len(g & f), len(f), len(g)) for g, f in rows], dtype=np.float64)


def _recall_counts(
    value: str, classes: list[list[str]], expected: list[list[Entity]], found: list[set[Entity]]
) -> Floats:
    chosen = [[e for e, c in zip(gold, row, strict=True) if c == value] for gold, row in zip(expected, classes)]
    return np.array([(sum(e in run for e in row), len(row)) for row, run in zip(chosen, found)], dtype=np.float64)


def _mean_ratio(sums: NDArray[Any]) -> Floats:
    """The mean over runs of the scores of (R, ..., K) summed counts."""
    mean: Floats = ratio(sums).mean(0)
    return mean


def _intervals(parts: Sequence[_Part]) -> list[tuple[float, float]]:
    """The 95 % interval of each part's score."""
    from statsmodels.stats.proportion import proportion_confint

    resampled = _resampled([part for part in parts if part.metric != "accuracy"])
    intervals = []
    for part in parts:
        if part.metric == "accuracy":
            right = float(_mean_ratio(part.counts.sum(1))) * part.size
            low, high = proportion_confint(right, part.size, method="wilson")
        else:
            low, high = np.nanpercentile(next(resampled), (2.5, 97.5))
        intervals.append((float(low), float(high)))
    return intervals


def _resampled(parts: Sequence[_Part]) -> Iterator[Floats]:
    """The scores (B,) of each part in the same B resamples of all examples."""
    if not parts:
        return
    N = parts[0].counts.shape[1]
    rng = np.random.default_rng(0)
    drawn = np.stack([np.bincount(rng.integers(0, N, N), minlength=N) for _ in range(RESAMPLES)]).astype(np.float32)
    for part in parts:
        sums = np.einsum("bn,rnk->rbk", drawn, part.counts.astype(np.float32), optimize=True)  # (R, B, K)
        yield _mean_ratio(sums)
