"""What tables of each task say example by example."""

import math
from typing import Any

import numpy as np
import pytest

from research.metrics.entities import entity_list
from research.metrics.examples import NOTHING, words
from tests.report import handmade


def test_classification() -> None:
    table = handmade.classes(["yes", "no", "yes"], ["yes", "yes", "no"], [[0.2, 0.8], [0.4, 0.6], [0.9, 0.1]])
    examples = handmade.examples(table)
    assert examples.has_labels
    assert examples.score.tolist() == [1, 0, 0]
    assert examples.confidence.tolist() == [0.8, 0.6, 0.9]
    assert examples.belief.tolist() == [0.8, 0.4, 0.1]  # probability of the gold label
    assert examples.right.tolist() == [True, False, False]


def test_pairs_of_texts_and_choices_are_shown_side_by_side() -> None:
    table = handmade.classes(["no"], ["no"], [[1.0, 0.0]], text=["a"], text_pair=["b"], choices=[["c", "d"]])
    assert handmade.examples(table).text == ["a ‖ b ‖ c / d"]


def test_entities() -> None:
    rows = [
        ("Anna met Oslo", "B-PER O B-LOC", "B-PER O O"),  # one of two found: precision 1, recall 1/2
        ("very good", "O O", "O O"),
        ("in Acme Ltd", "O B-ORG I-ORG", "B-LOC B-ORG O"),
    ]
    sure = [[0.9, 0.8, 0.6], [0.7, 0.95], [0.55, 0.99, 0.75]]
    examples = handmade.examples(handmade.entities(rows, sure))
    assert examples.score == pytest.approx([2 / 3, 1.0, 0.0])  # nothing to find and nothing found is right
    assert examples.confidence.tolist() == [0.6, 0.7, 0.75]  # the surest wrong tag, else the least sure one
    assert examples.gold == ["Anna [PER], Oslo [LOC]", NOTHING, "Acme Ltd [ORG]"]
    assert examples.prediction[2] == "in [LOC], Acme [ORG]"


def test_questions() -> None:
    n_best = [{"text": "Oslo", "score": 2.0}, {"text": "a", "score": 1.0}]
    rows: list[dict[str, Any]] = [
        {"gold": ["in Oslo", "Oslo"], "prediction": "Oslo", "n_best": n_best},
        {"gold": ["the red book"], "prediction": "red film", "n_best": [{"text": "red film", "score": 0.0}]},
        {"gold": ["x"], "prediction": "", "n_best": []},
    ]
    rows = [{**row, "question": "where ?", "context": "c"} for row in rows]
    examples = handmade.examples(handmade.questions(rows))
    assert examples.score == pytest.approx([1.0, 0.5, 0.0])  # 'the' is dropped: red book against red film
    assert examples.confidence[:2] == pytest.approx([math.e / (math.e + 1), 1.0])
    assert np.isnan(examples.confidence[2])
    assert examples.gold[0] == "in Oslo | Oslo" and examples.prediction[2] == NOTHING
    assert examples.text[0] == "where ? ‖ c"


def test_a_question_without_an_answer_is_right_when_none_is_given() -> None:
    n_best = [{"text": "Oslo", "score": 1.0}]
    base = {"question": "q", "context": "c", "n_best": n_best, "answer": "Oslo"}
    rows = [
        {**base, "gold": [], "prediction": "", "no_answer_score": 2.0},
        {**base, "gold": [], "prediction": "Oslo", "no_answer_score": -1.0},
    ]
    examples = handmade.examples(handmade.questions(rows, "squad_v2"))
    assert examples.score.tolist() == [1.0, 0.0]
    e = math.exp
    assert examples.confidence == pytest.approx([e(2) / (1 + e(2)), 1 / (1 + e(-1))])


@pytest.mark.parametrize(("text", "count"), [("a good film", 3), ("我爱北京", 4), ("用GPU训练", 4), ("", 0)])
def test_words_count_characters_of_scripts_without_spaces(text: str, count: int) -> None:
    assert words(text) == count


def test_entity_list() -> None:
    assert entity_list(["New", "York", "is"], [("LOC", 0, 2)]) == "New York [LOC]"
