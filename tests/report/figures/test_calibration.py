"""Reliability: bins as the recorded score has them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from research.metrics.classification import CALIBRATION_BINS as BINS
from research.report.figures.calibration import LARGEST_POINT, draw_reliability, reliability
from research.report.figures.style import applied
from research.tracking import predictions
from tests.metrics.scores import calibration_error
from tests.report import handmade, synthetic


def claims_of(table: pa.Table) -> Any:
    return predictions.metric(table).claims(table)


def test_bins_hold_their_lower_edge_and_their_means() -> None:
    confidence = np.array([0.05, 1 / 15, 0.07, 0.95, 1.0])
    right = np.array([True, False, True, True, False])
    found = reliability(confidence, right)
    assert found.size.tolist() == [1, 2, 1, 1]
    assert found.confidence == pytest.approx([0.05, (1 / 15 + 0.07) / 2, 0.95, 1.0])
    assert found.accuracy.tolist() == [1.0, 0.5, 1.0, 0.0]
    assert found.error == pytest.approx((0.95 + 2 * abs(0.5 - (1 / 15 + 0.07) / 2) + 0.05 + 1.0) / 5)


def test_the_error_is_the_recorded_score() -> None:
    table = synthetic.make_table("sentiment", "reviews", "test", 500, 0.7, ("a", "b", "c"), {"seed": 0})
    probabilities = np.array(table.column("probabilities").to_pylist())
    gold = np.array([("a", "b", "c").index(label) for label in table.column("gold").to_pylist()])
    assert BINS == 15
    assert reliability(*claims_of(table)).error == pytest.approx(calibration_error(gold, probabilities), abs=1e-12)


def test_words_are_the_claims_of_ner() -> None:
    rows = [("Anna met Oslo", "B-PER O B-LOC", "B-PER O O"), ("a", "O", "O")]
    table = handmade.entities(rows, [[0.9, 0.8, 0.6], [0.7]])
    confidence, right = claims_of(table)
    assert confidence.tolist() == [0.9, 0.8, 0.6, 0.7]
    assert right.tolist() == [1, 1, 0, 1]


def test_points_are_sized_by_their_counts() -> None:
    confidence = np.array([0.55] * 30 + [0.95] * 10)
    with applied():
        figure = draw_reliability({"lr 1e-3": [(confidence, confidence > 0.9)]})
    points: Any = figure.axes[0].collections[0]
    assert points.get_sizes().tolist() == [LARGEST_POINT, LARGEST_POINT / 3]
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["calibrated", "lr 1e-3 (ECE 42.5 %)"]  # (30 * 0.55 + 10 * 0.05) / 40


def test_predictions_without_a_confidence_are_left_out() -> None:
    assert reliability(np.array([np.nan, 0.5]), np.array([True, True])).size.tolist() == [1]
