"""Scores of plain lists and mappings by the metrics, as official scorers take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from research.metrics import metric_of
from research.metrics.squad import best_thresholds


def classification_scores(
    gold: Sequence[str], prediction: Sequence[str], probabilities: Any | None, labels: Sequence[str]
) -> dict[str, float]:
    """The scores of N predicted labels against N gold labels, with probabilities (N, C) or None.

    Raises ValueError when lengths or shapes disagree, there is no example, or a label is not declared.
    """
    metric = metric_of({"scorer": "classification", "labels": list(labels)})
    columns = {} if probabilities is None else {"probabilities": np.asarray(probabilities).tolist()}
    return metric.score(metric.table(prediction, gold, **columns))


def calibration_error(gold: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error of the most probable class: `gold` (N,) class indices, `probabilities` (N, C)."""
    metric = metric_of({"scorer": "classification", "labels": [str(i) for i in range(probabilities.shape[1])]})
    table = metric.table(probabilities.tolist(), gold.tolist())
    return metric.score(table)["calibration_error"]


def entity_scores(gold: Sequence[Sequence[str]], prediction: Sequence[Sequence[str]]) -> dict[str, float]:
    """The scores of the predicted tags of N whole sentences.

    Raises ValueError when the numbers of sentences or of words differ.
    """
    metric = metric_of({"scorer": "entities"})
    return metric.score(metric.table(list(map(list, prediction)), list(map(list, gold))))


def squad_scores(predictions: Mapping[str, str], answers: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """SQuAD v1.1: `exact_match` and `f1` over all questions of `answers`.

    As in the official scorer a question without a prediction scores 0, and a prediction for an unknown
    question is ignored. Raises ValueError if a question has no answer: those belong to v2.0.
    """
    return _scores(predictions, answers, {"rules": "squad"})


def cmrc_scores(predictions: Mapping[str, str], answers: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """CMRC 2018: `exact_match` and `f1`; missing predictions score 0."""
    return _scores(predictions, answers, {"rules": "cmrc"})


def squad_v2_scores(
    predictions: Mapping[str, str],
    answers: Mapping[str, Sequence[str]],
    no_answer_probabilities: Mapping[str, float] | None = None,
    threshold: float = 1.0,
) -> dict[str, float]:
    """SQuAD v2.0: a question counts as predicted to have no answer when its probability exceeds `threshold`.

    Returns `exact_match` and `f1`; the same over the questions with and over those without an answer, where there are
    any (`has_answer_f1`, `no_answer_f1`, ...); and with `no_answer_probabilities` (any score that rises with the belief
    in no answer will do) the official ones of `best_thresholds`. Raises ValueError if a question has no prediction or
    no probability.
    """
    _require(predictions, answers, "prediction")
    settings = {"rules": "squad_v2", "threshold": threshold}
    if no_answer_probabilities is None:
        return _scores(predictions, answers, settings)
    _require(no_answer_probabilities, answers, "no-answer probability")
    doubts = [no_answer_probabilities[question] for question in answers]
    scores = _scores(predictions, answers, settings, no_answer_score=doubts)
    best = best_thresholds(predictions, answers, no_answer_probabilities)
    return scores | {name: value for name, value in best.items() if name.startswith("best_")}


def _scores(
    predictions: Mapping[str, str], answers: Mapping[str, Sequence[str]], settings: dict[str, Any], **columns: Any
) -> dict[str, float]:
    if not answers:
        raise ValueError("there are no questions to score")
    metric = metric_of({"scorer": "squad", **settings})
    table = metric.table([predictions.get(q) for q in answers], list(map(list, answers.values())), **columns)
    return metric.scores_of(metric.sums(table.set_column(0, "id", pa.array(list(answers)))))


def _require(given: Mapping[str, object], answers: Mapping[str, Sequence[str]], what: str) -> None:
    missing = [question for question in answers if question not in given]
    if missing:
        raise ValueError(f"{len(missing)} questions have no {what}, the first is {missing[0]!r}")
