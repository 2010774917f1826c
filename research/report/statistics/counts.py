"""What each example adds to a metric: counts whose sums over any set of examples give the metric of that set.

With them a metric is recomputed on each resample, as a metric of corpora must be: the mean of the F1 of sentences
is not the F1 of the sentences. The scorers are those of `research.metrics`, and the counts of all examples give
their scores.

Legend: N examples, K counts, R runs, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from research.common.errors import UserError
from research.metrics.entities import Entity, entity_counts, lenient_entities, precision_recall_f1
from research.metrics.squad import per_question
from research.tracking import predictions

Score = Callable[[np.ndarray], np.ndarray]  # sums (..., K) -> metric (...)
PARTS = ("precision", "recall", "f1")


@dataclass(frozen=True)
class Counts:
    """One run's counts."""

    values: np.ndarray  # (N, K)
    score: Score

    @property
    def metric(self) -> float:
        """The metric of all examples."""
        return float(self.score(self.values.sum(axis=0)))


@dataclass(frozen=True)
class PairedCounts:
    """Counts of several runs on the same examples, in the same order."""

    ids: list[str]  # N
    values: np.ndarray  # (R, N, K)
    score: Score

    @property
    def metrics(self) -> np.ndarray:
        """The metric of each run (R,)."""
        return self.score(self.values.sum(axis=1))


def paired(tables: Iterable[tuple[str, pa.Table]], metric: str) -> PairedCounts:
    """Counts of runs, given as name and predictions table one by one, lined up by the examples' ids.

    Raises UserError where the ids or the gold answers of two runs differ, and for a metric that has no counts.
    """
    rest = iter(tables)
    first_name, first = next(rest)
    ids, gold, counts = first.column("id").to_pylist(), first.column("gold"), count(first, metric)
    values = [counts.values]
    for name, table in rest:
        table = in_order(table, ids, name, first_name)
        if not table.column("gold").equals(gold):
            raise UserError(f"{first_name} and {name} hold other gold answers for the same ids; they cannot be paired.")
        values.append(count(table, metric).values)
    return PairedCounts(ids, np.stack(values), counts.score)


def in_order(table: pa.Table, ids: Sequence[str], name: str, first_name: str) -> pa.Table:
    """The rows of a table in the order of `ids`. Raises UserError unless both hold the same ids."""
    own = table.column("id").to_pylist()
    if own == list(ids):
        return table
    alone = sorted(set(own) ^ set(ids))
    if alone or len(own) != len(ids):
        example = f", '{alone[0]}' stands in one alone" if alone else ""
        raise UserError(
            f"{first_name} ({len(ids):,} examples) and {name} ({len(own):,}) cannot be paired: their ids "
            f"differ{example}."
        )
    return table.take(pc.index_in(pa.array(ids), table.column("id").combine_chunks()))


def count(table: pa.Table, metric: str) -> Counts:
    """The counts behind one metric of a predictions table.

    Raises UserError for a metric that is no function of sums over examples, naming those that are.
    """
    how = predictions.settings(table)
    by_scorer = {"classification": _classification, "entities": _entities, "squad": _squad}
    found = by_scorer[how["scorer"]](table, how, metric) if how["scorer"] in by_scorer else None
    if found is None:
        known = {
            "classification": "accuracy, f1, precision, recall, mcc, calibration_error, f1/<label>, ...",
            "entities": "f1, precision, recall, strict_f1, ..., accuracy, f1/<type>, ...",
            "squad": "exact_match, f1, has_answer_f1, no_answer_f1, ...",
        }
        raise UserError(
            f"Resampling '{metric}' of scorer '{how['scorer']}' is not possible: it is no function of counts of "
            f"examples; {known.get(how['scorer'], 'no metric of this scorer')} is."
        )
    return found


# --- classification -----------------------------------------------------------------------------------


def _classification(table: pa.Table, how: Mapping[str, Any], metric: str) -> Counts | None:
    labels = pa.array(how["labels"], pa.string())
    gold, prediction = (pc.index_in(table.column(name), labels).to_numpy() for name in ("gold", "prediction"))  # (N,)
    part, _, label = metric.partition("/")
    if metric == "accuracy":
        return Counts(_with_ones(gold == prediction), _ratio)
    if metric == "calibration_error":
        return _calibration(gold, np.array(table.column("probabilities").to_pylist()))
    classes = np.arange(len(labels))
    if label and part in PARTS and label in how["labels"]:
        classes = np.array([how["labels"].index(label)])
    elif metric not in (*PARTS, "mcc"):
        return None
    expected, found = gold[:, None] == classes, prediction[:, None] == classes  # (N, C)
    values = np.stack([expected & found, found, expected], axis=-1).astype(np.float64)  # (N, C, 3)
    flat = values.reshape(len(values), -1)
    return Counts(flat, _matthews if metric == "mcc" else _mean_over_classes(PARTS.index(part)))


def _mean_over_classes(part: int) -> Score:
    """Macro average of precision (0), recall (1) or F1 (2) from sums (..., 3C)."""
    return lambda sums: precision_recall_f1(sums.reshape(*sums.shape[:-1], -1, 3))[..., part].mean(axis=-1)


def _matthews(sums: np.ndarray) -> np.ndarray:
    """Matthews correlation of C classes (Gorodkin 2004) from sums (..., 3C); 0 where it is undefined."""
    both, predicted, gold = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 3), -1, 0)  # (..., C)
    examples = gold.sum(axis=-1)
    covariance = both.sum(axis=-1) * examples - (predicted * gold).sum(axis=-1)
    spread = (examples**2 - (predicted**2).sum(axis=-1)) * (examples**2 - (gold**2).sum(axis=-1))
    return np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)


def _calibration(gold: np.ndarray, probabilities: np.ndarray) -> Counts:
    """Per bin of confidence, correct minus confidence: see research.metrics.classification.calibration_error."""
    confidence = probabilities.max(axis=1)
    gap = (probabilities.argmax(axis=1) == gold) - confidence  # (N,)
    bins = np.searchsorted(np.linspace(0, 1, 16), confidence, side="right") - 1  # (N,)
    values = np.where(bins[:, None] == np.arange(16), gap[:, None], 0.0)
    return Counts(
        np.column_stack([values, np.ones(len(values))]),
        lambda sums: np.abs(sums[..., :-1]).sum(axis=-1) / np.maximum(sums[..., -1], 1),
    )


# --- entities -----------------------------------------------------------------------------------------


def _entities(table: pa.Table, how: Mapping[str, Any], metric: str) -> Counts | None:
    gold, prediction = (table.column(name).to_pylist() for name in ("gold", "prediction"))
    part, _, kind = metric.removeprefix("strict_").partition("/")
    strict = metric.startswith("strict_")
    if metric == "accuracy":
        equal = [sum(map(str.__eq__, tags, others)) for tags, others in zip(gold, prediction, strict=True)]
        return Counts(np.array([equal, [len(tags) for tags in gold]], dtype=np.float64).T, _ratio)
    if part not in PARTS or (kind and strict):
        return None
    counts = _counts_of_type(gold, prediction, kind) if kind else entity_counts(gold, prediction, strict=strict)
    index = PARTS.index(part)
    return Counts(counts.astype(np.float64), lambda sums: precision_recall_f1(sums)[..., index])


def _counts_of_type(gold: Sequence[Sequence[str]], prediction: Sequence[Sequence[str]], kind: str) -> np.ndarray:
    """True positives, predicted and gold entities of one type per sentence (N, 3), lenient reading."""

    def of_type(tags: Sequence[str]) -> set[Entity]:
        return {entity for entity in lenient_entities(tags) if entity[0] == kind}

    rows = []
    for tags, others in zip(gold, prediction, strict=True):
        expected, found = of_type(tags), of_type(others)
        rows.append((len(expected & found), len(found), len(expected)))
    return np.array(rows)


# --- question answering -------------------------------------------------------------------------------


def _squad(table: pa.Table, how: Mapping[str, Any], metric: str) -> Counts | None:
    group, name = "", metric
    for prefix in ("has_answer_", "no_answer_"):
        if metric.startswith(prefix):
            group, name = prefix, metric.removeprefix(prefix)
    if name not in ("exact_match", "f1") or (group and how["rules"] != "squad_v2"):
        return None
    ids, texts, golds = (table.column(column).to_pylist() for column in ("id", "answer", "gold"))
    answers = dict(zip(ids, golds, strict=True))
    exact, f1 = per_question(dict(zip(ids, texts, strict=True)), answers, how["rules"])
    value = exact if name == "exact_match" else f1
    answerable = np.array([len(gold) > 0 for gold in golds])
    if how["rules"] == "squad_v2":
        withheld = table.column("no_answer_score").to_numpy() > how["threshold"]
        value = np.where(withheld, ~answerable, value)
    counted = {"": np.ones(len(ids), bool), "has_answer_": answerable, "no_answer_": ~answerable}[group]
    return Counts(np.column_stack([value * counted, counted]).astype(np.float64), _ratio)


def _with_ones(right: np.ndarray) -> np.ndarray:
    return np.column_stack([right, np.ones(len(right))]).astype(np.float64)


def _ratio(sums: np.ndarray) -> np.ndarray:
    """First sum over second, 0 where there is nothing to divide by."""
    return sums[..., 0] / np.maximum(sums[..., 1], 1)
