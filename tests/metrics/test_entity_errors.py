"""The kind of every wrong entity, on cases made by hand."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.metrics.entity_errors import KINDS, all_pairs, confusion, counts, pairs


def kinds(gold: Any, predicted: Any) -> list[str]:
    return sorted(pair.kind for pair in pairs(gold, predicted))


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        ([("PER", 0, 2)], [("PER", 0, 2)], ["correct"]),
        ([("PER", 0, 2)], [("ORG", 0, 2)], ["type"]),
        ([("PER", 0, 2)], [("PER", 0, 1)], ["boundary"]),
        ([("PER", 0, 2)], [("ORG", 1, 3)], ["both"]),
        ([("PER", 0, 2)], [], ["missed"]),
        ([], [("PER", 0, 2)], ["spurious"]),
        ([("PER", 0, 2)], [("PER", 2, 4)], ["missed", "spurious"]),  # neighbours share no word
        ([("PER", 0, 4)], [("PER", 0, 2), ("PER", 2, 4)], ["boundary", "spurious"]),  # split in two
        ([("PER", 0, 2), ("PER", 2, 4)], [("PER", 0, 4)], ["boundary", "missed"]),  # merged
        # the exact partner wins over the one of equal type
        ([("PER", 0, 2)], [("ORG", 0, 2), ("PER", 1, 3)], ["spurious", "type"]),
        # of two that overlap, the one of equal type wins over the one that shares more
        ([("PER", 0, 4)], [("ORG", 0, 3), ("PER", 3, 5)], ["boundary", "spurious"]),
    ],
)
def test_kinds(gold: Any, predicted: Any, expected: Any) -> None:
    assert kinds(gold, predicted) == expected


def test_counts_and_confusion_of_sentences() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O", "O", "O"]]
    prediction = [["B-PER", "O", "O", "B-ORG"], ["O", "O", "B-LOC", "O"]]
    sentences = all_pairs(gold, prediction)
    counted = counts(sentences)
    assert {kind: dict(counter) for kind, counter in counted.items()} == {
        "correct": {}, "type": {"LOC": 1}, "boundary": {"PER": 1}, "both": {}, "missed": {"ORG": 1},
        "spurious": {"LOC": 1},
    }  # fmt: skip
    assert confusion(sentences) == Counter(
        {("PER", "PER"): 1, ("LOC", "ORG"): 1, ("ORG", "none"): 1, ("none", "LOC"): 1}
    )


spans = st.tuples(st.sampled_from(["PER", "ORG"]), st.integers(0, 8), st.integers(1, 4))


@given(st.lists(spans, max_size=5), st.lists(spans, max_size=5))
def test_every_entity_has_exactly_one_kind(gold: Any, predicted: Any) -> None:
    gold, predicted = ([(kind, start, start + size) for kind, start, size in side] for side in (gold, predicted))
    found = pairs(gold, predicted)
    assert sorted(pair.gold for pair in found if pair.gold) == sorted(gold)
    assert sorted(pair.predicted for pair in found if pair.predicted) == sorted(predicted)
    assert {pair.kind for pair in found} <= set(KINDS)
