"""Scores of single-label classification, from gold and predicted labels and class probabilities.

Legend: N examples, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

SCORES = ("accuracy", "f1", "precision", "recall", "mcc", "calibration_error")  # and some of them by class
_CALIBRATION_BINS = 15


def classification_scores(
    gold: Sequence[str],
    prediction: Sequence[str],
    probabilities: np.ndarray | None,
    labels: Sequence[str],
) -> dict[str, float]:
    """Score N predicted labels against N gold labels; every score is a fraction but `mcc` (-1 to 1).

    Returns `accuracy`; `precision`, `recall`, `f1` (macro: the plain mean over all declared `labels`, where
    a label that occurs in neither gold nor prediction counts as 0); `mcc` (Matthews correlation);
    `calibration_error` when `probabilities` (N, C), columns in the order of `labels`, are given; and for
    every label `precision/<label>`, `recall/<label>`, `f1/<label>` and `support/<label>` (gold examples).
    Ratios with denominator 0 are 0.

    Raises ValueError when lengths or shapes disagree, there is no example, or a label is not declared.
    """
    from sklearn.metrics import accuracy_score, matthews_corrcoef, precision_recall_fscore_support

    _check(gold, prediction, probabilities, labels)
    gold, prediction, labels = list(gold), list(prediction), list(labels)
    precision, recall, f1, support = precision_recall_fscore_support(
        gold, prediction, labels=labels, average=None, zero_division=0
    )
    scores = {
        "accuracy": float(accuracy_score(gold, prediction)),
        "f1": float(f1.mean()),
        "precision": float(precision.mean()),
        "recall": float(recall.mean()),
        "mcc": float(matthews_corrcoef(gold, prediction)),
    }
    if probabilities is not None:
        index = {label: position for position, label in enumerate(labels)}
        gold_index = np.array([index[label] for label in gold])
        scores["calibration_error"] = calibration_error(gold_index, probabilities)
    for position, label in enumerate(labels):
        scores[f"precision/{label}"] = float(precision[position])
        scores[f"recall/{label}"] = float(recall[position])
        scores[f"f1/{label}"] = float(f1[position])
        scores[f"support/{label}"] = float(support[position])
    return scores


def calibration_error(gold: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error (Naeini et al. 2015; Guo et al. 2017) of the most probable class.

    `gold` (N,) class indices, `probabilities` (N, C). 15 bins of equal width, L1 norm: the mean over examples
    of |accuracy - mean confidence| of their bin. A bin holds its lower edge; a confidence of exactly 1 has a
    bin of its own, as in torchmetrics' MulticlassCalibrationError.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    confidence = probabilities.max(axis=1)  # (N,)
    correct = probabilities.argmax(axis=1) == gold  # (N,)
    edges = np.linspace(0, 1, _CALIBRATION_BINS + 1)
    bins = np.searchsorted(edges, confidence, side="right") - 1  # (N,)
    # |accuracy - confidence| * size / N of a bin is |sum of correct - sum of confidence| / N.
    gaps = np.bincount(bins, weights=correct - confidence)
    return float(np.abs(gaps).sum() / len(gold))


def _check(
    gold: Sequence[str], prediction: Sequence[str], probabilities: np.ndarray | None, labels: Sequence[str]
) -> None:
    if not len(gold):
        raise ValueError("there are no examples to score")
    if len(gold) != len(prediction):
        raise ValueError(f"{len(gold)} gold labels but {len(prediction)} predictions")
    if len(set(labels)) != len(labels):
        raise ValueError(f"the labels {list(labels)} name one class twice")
    if undeclared := {*gold, *prediction} - set(labels):
        raise ValueError(f"labels {sorted(undeclared)} are not among the declared {list(labels)}")
    if probabilities is not None:
        if np.shape(probabilities) != (len(gold), len(labels)):
            raise ValueError(f"probabilities have shape {np.shape(probabilities)}, expected {(len(gold), len(labels))}")
        # Written so that NaN fails too.
        if not np.all((np.asarray(probabilities) >= 0) & (np.asarray(probabilities) <= 1)):
            raise ValueError("probabilities must lie between 0 and 1: logits or NaN were given")


def score(table: pa.Table, settings: Mapping[str, Any]) -> dict[str, float]:
    """Score a predictions table with the columns gold, prediction and probabilities; `settings` has the labels."""
    rows = {name: table.column(name).to_pylist() for name in ("gold", "prediction", "probabilities")}
    probabilities = np.array(rows["probabilities"])
    return classification_scores(rows["gold"], rows["prediction"], probabilities, settings["labels"])
