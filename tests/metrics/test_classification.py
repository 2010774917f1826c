"""Classification scores against hand-computed figures and torchmetrics."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_matthews_corrcoef,
    multiclass_precision,
    multiclass_recall,
)

from tests.metrics.scores import calibration_error, classification_scores

LABELS = ["negative", "neutral", "positive"]


def test_golden_case() -> None:
    gold = ["negative", "negative", "negative", "positive", "positive", "neutral"]
    prediction = ["negative", "negative", "positive", "positive", "negative", "positive"]
    scores = classification_scores(gold, prediction, None, LABELS)
    assert scores == pytest.approx(
        {
            "accuracy": 3 / 6,
            "precision": (2 / 3 + 0 + 1 / 3) / 3,
            "recall": (2 / 3 + 0 + 1 / 2) / 3,
            "f1": (2 / 3 + 0 + 2 / 5) / 3,
            # Gorodkin's R_K: (c s - sum p t) / sqrt((s^2 - sum p^2)(s^2 - sum t^2)).
            "mcc": (3 * 6 - (3 * 3 + 3 * 2)) / ((36 - 18) * (36 - 14)) ** 0.5,
            "precision/negative": 2 / 3,
            "recall/negative": 2 / 3,
            "f1/negative": 2 / 3,
            "support/negative": 3,
            "precision/neutral": 0,
            "recall/neutral": 0,
            "f1/neutral": 0,
            "support/neutral": 1,
            "precision/positive": 1 / 3,
            "recall/positive": 1 / 2,
            "f1/positive": 2 / 5,
            "support/positive": 2,
        },
        abs=1e-15,
    )


def test_a_declared_label_that_never_occurs_counts_in_the_averages() -> None:
    scores = classification_scores(["a", "b"], ["a", "b"], None, ["a", "b", "c"])
    assert scores["f1"] == scores["precision"] == scores["recall"] == pytest.approx(2 / 3)
    assert scores["accuracy"] == scores["mcc"] == 1
    assert scores["support/c"] == 0


def test_calibration_error_by_hand() -> None:
    # Three confidences share the bin [12/15, 13/15), one is sure and wrong.
    probabilities = np.array([[0.82, 0.18], [0.84, 0.16], [0.14, 0.86], [1.0, 0.0]])
    gold = np.array([0, 1, 1, 1])
    expected = 3 / 4 * abs(2 / 3 - (0.82 + 0.84 + 0.86) / 3) + 1 / 4 * abs(0 - 1)
    assert calibration_error(gold, probabilities) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_agrees_with_torchmetrics(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = [f"class {number}" for number in range(classes)]
    gold = np.concatenate([np.arange(classes), rng.integers(classes, size=200)])
    probabilities = rng.dirichlet(np.full(classes, 0.3), size=len(gold))
    predicted = probabilities.argmax(axis=1)
    scores = classification_scores(
        [labels[index] for index in gold], [labels[index] for index in predicted], probabilities, labels
    )
    preds, target = torch.from_numpy(predicted), torch.from_numpy(gold)
    for name, function in (
        ("precision", multiclass_precision),
        ("recall", multiclass_recall),
        ("f1", multiclass_f1_score),
    ):
        macro = function(preds, target, num_classes=classes, average="macro").item()
        assert scores[name] == pytest.approx(macro, abs=1e-6)
        per_class = function(preds, target, num_classes=classes, average="none").tolist()
        for label, value in zip(labels, per_class, strict=True):
            assert scores[f"{name}/{label}"] == pytest.approx(value, abs=1e-6)
    accuracy = multiclass_accuracy(preds, target, num_classes=classes, average="micro").item()
    assert scores["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    mcc = multiclass_matthews_corrcoef(preds, target, num_classes=classes).item()
    assert scores["mcc"] == pytest.approx(mcc, abs=1e-6)
    error = multiclass_calibration_error(torch.from_numpy(probabilities), target, classes, n_bins=15).item()
    assert scores["calibration_error"] == pytest.approx(error, abs=1e-6)
    assert sum(scores[f"support/{label}"] for label in labels) == len(gold)


def test_calibration_error_agrees_with_torchmetrics_on_bin_edges() -> None:
    # Where a confidence on an edge falls changes the score: accuracy differs from bin to bin.
    confidence = np.array([0.5, 0.6, 0.6, 0.65, 0.8, 0.8, 0.79, 0.85, 1.0, 1.0, 0.99])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    gold = np.array([0, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0])
    preds, target = torch.from_numpy(probabilities), torch.from_numpy(gold)
    expected = multiclass_calibration_error(preds, target, num_classes=2, n_bins=15).item()
    assert calibration_error(gold, probabilities) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("gold", "prediction", "probabilities", "message"),
    [
        ([], [], None, "no examples"),
        (["a"], ["a", "b"], None, "1 gold answers but 2 predictions"),
        (["a"], ["z"], None, r"labels \['z'\] are not among the declared \['a', 'b'\]"),
        (["a"], ["a"], np.ones((1, 3)), r"shape \(1, 3\), expected \(1, 2\)"),
        (["a"], ["a"], np.array([[3.0, -1.0]]), "between 0 and 1"),
        (["a"], ["a"], np.array([[np.nan, 0.5]]), "between 0 and 1"),
    ],
)
def test_refuses(gold: list[str], prediction: list[str], probabilities: np.ndarray | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification_scores(gold, prediction, probabilities, ["a", "b"])
