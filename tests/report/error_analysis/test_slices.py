"""Slices: who belongs to which, their scores and intervals."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from statsmodels.stats.proportion import proportion_confint

from research.metrics.slicing import quarters
from research.metrics.squad import question_word
from research.report.error_analysis.slices import score_slices, wilson
from research.tracking import predictions
from tests.report import handmade, synthetic


def found(slices: Any, by: str) -> dict[str, Any]:
    return {each.value: each for each in slices if each.by == by}


def class_table(rights: Any, **columns: Any) -> Any:
    gold = ["yes" if i % 2 else "no" for i in range(len(rights))]
    other = {"yes": "no", "no": "yes"}
    prediction = [label if right else other[label] for label, right in zip(gold, rights, strict=True)]
    probabilities = [[0.3, 0.7] if label == "yes" else [0.7, 0.3] for label in prediction]
    return handmade.classes(gold, prediction, probabilities, **columns)


def test_each_label_has_its_accuracy_and_wilsons_interval() -> None:
    first = class_table([True, True, True, False, True, False, True, True, True, False, True, True])
    second = class_table([True] * 12)
    slices = found(score_slices([first, second]), "gold label")
    # label yes: examples 1, 3, 5, ... of which the first run gets 3, 5 and 9 wrong
    assert slices["yes"].size == 6 and slices["yes"].score == pytest.approx((3 / 6 + 1) / 2)
    low, high = proportion_confint(0.75 * 6, 6, method="wilson")  # six examples, though twelve predictions
    assert (slices["yes"].low, slices["yes"].high) == pytest.approx((low, high))
    assert slices["no"].score == 1 and slices["no"].high == pytest.approx(1)


def test_wilson_has_the_published_value() -> None:
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662."""
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_slices_of_few_examples_are_left_out() -> None:
    slices = score_slices([class_table([True] * 12, domain=["a"] * 8 + ["b"] * 4)])
    assert set(found(slices, "domain")) == {"a"}


def test_any_column_cuts_by_value_or_by_quarters() -> None:
    table = class_table(
        [True] * 40, domain=["web", "news"] * 20, year=list(range(40)), note=[f"n{i}" for i in range(40)],
        constant=[1] * 40, nested=[[1]] * 40,
    )  # fmt: skip
    by: dict[Any, Any] = {}
    for name, value, mask in predictions.metric(table).cuts(table):
        by.setdefault(name, {})[value] = int(mask.sum())
    assert by["domain"] == {"news": 20, "web": 20}
    assert by["year"] == {"0 to 9": 10, "10 to 19": 10, "20 to 29": 10, "30 to 39": 10}
    assert not {"note", "constant", "nested"} & set(by)


def test_quarters_of_many_equal_numbers_hold_every_example_once() -> None:
    numbers = np.array([1, 1, 1, 1, 1, 2, 3, np.nan])
    parts = list(quarters("n", numbers))
    assert [value for _, value, _ in parts] == ["1", "2 to 3"]
    assert np.sum([mask for _, _, mask in parts], axis=0).tolist() == [1] * 7 + [0]


def test_quarters_of_one_number_are_none() -> None:
    assert list(quarters("n", np.ones(9))) == []


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("Who wrote it?", "who"),
        ("In what year was it?", "what"),
        ("How many books are there?", "how many"),
        ("How is he?", "how"),
        ("Name the author.", "other"),
        ("“Why?” he asked", "why"),
        ("这本书是谁写的？", "谁"),
    ],
)
def test_question_words(question: str, word: str) -> None:
    assert question_word(question) == word


def test_f1_of_entity_types_and_recall_of_rare_entities() -> None:
    rows = [("Oslo is", "B-LOC O", "B-LOC O")] * 6 + [("Oslo Acme", "B-LOC B-ORG", "O B-ORG")] * 6
    slices = score_slices([handmade.entities(rows)])
    kinds = found(slices, "entity type")
    assert kinds["LOC"].size == 12 and kinds["LOC"].score == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert kinds["ORG"].score == 1 and (kinds["ORG"].low, kinds["ORG"].high) == (1, 1)
    rare = found(slices, "occurrences of the entity in this split")
    assert rare["5 or more"].size == 18 and rare["5 or more"].score == pytest.approx(12 / 18)
    assert rare["5 or more"].metric == "recall"
    assert found(slices, "entity length (words)")["1"].score == pytest.approx(12 / 18)


def test_entities_are_seen_or_unseen_in_training() -> None:
    rows = [("OSLO is", "B-LOC O", "B-LOC O")] * 5 + [("Bergen is", "B-LOC O", "O O")] * 5
    train = handmade.entities([("oslo", "B-LOC", "B-LOC")])
    slices = found(score_slices([handmade.entities(rows)], train), "entity in training")
    assert {value: each.score for value, each in slices.items()} == {"seen": 1.0, "unseen": 0.0}


def test_bootstrap_intervals_of_questions_hold_the_score_and_narrow_with_the_slice() -> None:
    table = synthetic.make_table("qa", "wiki", "test", 400, 0.7, (), {"seed": 1})
    slices = score_slices([table])
    whole = [each for each in slices if each.by == "answer"]
    assert not whole  # every question has an answer: nothing to cut
    words = [each for each in slices if each.by == "question word"]
    assert sum(each.size for each in words) == 400
    for each in words:
        assert each.low < each.score < each.high
        assert each.metric == "f1" and 0.05 < each.high - each.low < 0.3


def test_runs_in_another_order_are_lined_up() -> None:
    table = class_table([True] * 6 + [False] * 6)
    shuffled = table.take(pa.array([11, 0, 10, 1, 9, 2, 8, 3, 7, 4, 6, 5]))
    one, two = score_slices([table]), score_slices([table, shuffled])
    assert [each.score for each in one] == [each.score for each in two]
