"""Confusion matrices: counts, many classes, entity types."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from research.report.figures.confusion import MOST_CLASSES, OTHERS, draw_confusion, matrix_of
from research.report.figures.style import applied
from research.tracking import predictions
from tests.report import handmade


def confusion(table: pa.Table) -> Any:
    return predictions.metric(table).confusion(table)


def test_classes() -> None:
    table = handmade.classes(["yes", "yes", "no"], ["yes", "no", "no"], [[0.5, 0.5]] * 3)
    labels, matrix = matrix_of(confusion(table))
    assert labels == ["no", "yes"] and matrix.tolist() == [[1, 0], [1, 1]]


def test_entity_types_with_missed_and_spurious_ones() -> None:
    table = handmade.entities([("Anna met Oslo", "B-PER O B-LOC", "B-ORG B-LOC O")])
    labels, matrix = matrix_of(confusion(table))
    assert labels == ["LOC", "ORG", "PER", "none"]
    assert matrix.tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]


def test_of_many_classes_those_with_most_mistakes_are_kept() -> None:
    counts = Counter({(f"c{i:02d}", f"c{i:02d}"): 100 for i in range(40)})
    counts.update({(f"c{i:02d}", f"c{i + 1:02d}"): 5 for i in range(10, 10 + MOST_CLASSES - 1)})
    counts["c00", "c01"] = 1
    labels, matrix = matrix_of(counts)
    assert labels == [*(f"c{i:02d}" for i in range(10, 10 + MOST_CLASSES)), OTHERS]
    assert matrix.sum() == sum(counts.values())
    assert matrix[-1, -1] == 26 * 100 + 1


def test_questions_have_no_matrix() -> None:
    rows = [{"gold": ["a"], "prediction": "a", "question": "q", "context": "c"}]
    assert confusion(handmade.questions(rows)) is None


def test_shares_are_of_the_gold_class_and_counts_beside_them() -> None:
    counts = Counter({("no", "no"): 3, ("no", "yes"): 1, ("yes", "yes"): 2000})
    with applied():
        figure = draw_confusion(["no", "yes"], matrix_of(counts)[1], "reviews, test")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["75\n(3)", "25\n(1)", "100\n(2,000)"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["no (4)", "yes (2,000)"]
    assert axes.get_title() == "reviews, test"


def test_a_large_matrix_has_the_shares_alone() -> None:
    with applied():
        figure = draw_confusion(list("abcdefghi"), np.eye(9, dtype=int) * 5)
    assert [text.get_text() for text in figure.axes[0].texts] == ["100"] * 9
