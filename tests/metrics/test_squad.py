"""Question-answering scores against the official scorers, written out afresh from their definitions."""

import random
import re
import string
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.metrics.squad import Metric, question_values
from research.metrics.squad_question import (
    Rules,
    cmrc_exact_match,
    cmrc_f1,
    exact_match,
    find_lcs,
    mixed_segmentation,
    normalize_answer,
    remove_punctuation,
    token_f1,
)
from research.metrics.treebank import treebank_words
from tests.metrics.scores import cmrc_scores, squad_scores, squad_v2_scores

Answers = dict[str, list[str]]


def per_question(predictions: dict[str, str], answers: Answers, rules: Rules) -> tuple[np.ndarray, np.ndarray]:
    """Exact match and F1 of every question, in the order of the answers."""
    values = question_values([predictions.get(q) for q in answers], list(answers.values()), list(answers), rules)
    return values[:, 0], values[:, 1]


# SQuAD: evaluate-v1.1.py and evaluate-v2.0.py.
def reference_normalize(text: str) -> str:
    kept = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def reference_f1(prediction: str, answer: str, version: int) -> float:
    predicted, expected = reference_normalize(prediction).split(), reference_normalize(answer).split()
    same = sum((Counter(predicted) & Counter(expected)).values())
    if version == 2 and (not predicted or not expected):
        return int(predicted == expected)
    if same == 0:
        return 0
    precision, recall = 1.0 * same / len(predicted), 1.0 * same / len(expected)
    return (2 * precision * recall) / (precision + recall)


def reference_exact(prediction: str, answer: str) -> int:
    return int(reference_normalize(prediction) == reference_normalize(answer))


def reference_v1(predictions: dict[str, str], answers: Answers) -> dict[str, float]:
    exact = f1 = 0.0
    for question, texts in answers.items():
        if question in predictions:
            exact += max(reference_exact(predictions[question], text) for text in texts)
            f1 += max(reference_f1(predictions[question], text, version=1) for text in texts)
    return {"exact_match": exact / len(answers), "f1": f1 / len(answers)}


def reference_best(
    predictions: dict[str, str], scores: dict[str, float], probabilities: dict[str, float], answers: Answers
) -> tuple[float, float]:
    best = current = float(sum(1 for texts in answers.values() if not texts))
    threshold = 0.0
    for question in sorted(probabilities, key=lambda question: probabilities[question]):
        if question not in scores:
            continue
        if answers[question]:
            current += scores[question]
        elif predictions[question]:
            current += -1
        if current > best:
            best, threshold = current, probabilities[question]
    return best / len(scores), threshold


def reference_v2(
    predictions: dict[str, str], answers: Answers, probabilities: dict[str, float] | None, threshold: float
) -> dict[str, float]:
    raw: dict[str, dict[str, float]] = {"exact_match": {}, "f1": {}}
    for question, texts in answers.items():
        gold = [text for text in texts if reference_normalize(text)] or [""]
        raw["exact_match"][question] = max(reference_exact(predictions[question], text) for text in gold)
        raw["f1"][question] = max(reference_f1(predictions[question], text, version=2) for text in gold)
    result = {}
    for name, scores in raw.items():
        final = {}
        for question, score in scores.items():
            withheld = probabilities is not None and probabilities[question] > threshold
            final[question] = float(not answers[question]) if withheld else score
        result[name] = sum(final.values()) / len(final)
        for group, members in (
            ("has_answer", [question for question in answers if answers[question]]),
            ("no_answer", [question for question in answers if not answers[question]]),
        ):
            if members:
                result[f"{group}_{name}"] = sum(final[question] for question in members) / len(members)
        if probabilities is not None:
            best = reference_best(predictions, scores, probabilities, answers)
            result[f"best_{name}"], result[f"best_{name}_threshold"] = best
    return result


# CMRC 2018: cmrc2018_evaluate.py, with the word splitter that is tested in test_treebank.py.
CMRC_MARKS = [*"-:_*^/\\~`+=，。：？！“”；’《》", "……", *"·、「」（）－～『』"]


def reference_segmentation(text: str, drop: bool) -> list[str]:
    segments: list[str] = []
    run = ""
    for character in text.lower().strip():
        if drop and character in CMRC_MARKS:
            continue
        if re.search(r"[\u4e00-\u9fa5]", character) or character in CMRC_MARKS:
            segments += [*treebank_words(run), character]
            run = ""
        else:
            run += character
    return [*segments, *treebank_words(run)]


def reference_lcs(first: list[str], second: list[str]) -> int:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for row in range(len(first)):
        for column in range(len(second)):
            if first[row] == second[column]:
                table[row + 1][column + 1] = table[row][column] + 1
    return max(map(max, table))


def reference_cmrc(prediction: str, answers: list[str]) -> tuple[float, float]:
    def plain(text: str) -> str:
        return "".join(character for character in text.lower().strip() if character not in CMRC_MARKS)

    f1 = []
    for answer in answers:
        expected, predicted = reference_segmentation(answer, True), reference_segmentation(prediction, True)
        length = reference_lcs(expected, predicted)
        if length == 0:
            f1.append(0.0)
            continue
        precision, recall = 1.0 * length / len(predicted), 1.0 * length / len(expected)
        f1.append((2 * precision * recall) / (precision + recall))
    return float(any(plain(answer) == plain(prediction) for answer in answers)), max(f1)


WORDS = [
    *("a", "an", "the", "The", "AN", "theatre", "cat", "Cat", "dog's", "the-cat", "U.S.", "u.s", "5", "$5"),
    *(",", ".", "...", "-", "--", "_", "'", "\u2019", "\u2014", "\u00a0", "\u3000", "\t", "\n"),
    *("\u00e9", "e\u0301", "\u0130", "\u00df", "\u4e2d\u6587"),
]
ENGLISH = st.tuples(st.sampled_from([" ", "", "  "]), st.lists(st.sampled_from(WORDS), max_size=6)).map(
    lambda drawn: drawn[0].join(drawn[1])
)
# U+9FA5 is the last character that CMRC's scorer takes for Chinese.
CHINESE = st.text(
    alphabet="\u4e2d\u56fd\u9fa5\u9fa6\u30ab\u3000\u2026\u3002\uff0c\u300a\u300b\u201c\u2019ab1A2.,%'\" -_/",
    max_size=12,
)


def tasks(text: st.SearchStrategy[str], least_answers: int) -> st.SearchStrategy:
    """Questions: (gold answers, prediction, probability); predictions are often a gold answer."""
    question = st.tuples(
        st.lists(text, min_size=least_answers, max_size=3),
        text,
        st.sampled_from([0.0, 0.25, 0.5, 0.5, 0.75, 1.0]),
        st.booleans(),
    )
    return st.lists(question, min_size=1, max_size=12).map(
        lambda drawn: (
            {f"q{n}": answers for n, (answers, _, _, _) in enumerate(drawn)},
            {f"q{n}": a[0] if copy and a else text for n, (a, text, _, copy) in enumerate(drawn)},
            {f"q{n}": probability for n, (_, _, probability, _) in reversed(list(enumerate(drawn)))},
        )
    )


@settings(max_examples=100, deadline=None)
@given(st.one_of(ENGLISH, st.text(max_size=20)))
def test_normalize_answer(text: str) -> None:
    assert normalize_answer(text) == reference_normalize(text)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(tasks(st.one_of(ENGLISH, st.text(max_size=8)), least_answers=1), st.booleans())
def test_agrees_with_squad_v1(drawn: tuple[Any, ...], leave_one_out: bool) -> None:
    answers, predictions, _ = drawn
    if leave_one_out:
        del predictions["q0"]
    assert squad_scores(predictions, answers) == reference_v1(predictions, answers)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(tasks(ENGLISH, least_answers=0), st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0]), st.booleans())
def test_agrees_with_squad_v2(drawn: tuple[Any, ...], threshold: float, known: bool) -> None:
    answers, predictions, probabilities = drawn
    given_probabilities = probabilities if known else None
    threshold = threshold if known else 1.0
    expected = reference_v2(predictions, answers, given_probabilities, threshold)
    assert squad_v2_scores(predictions, answers, given_probabilities, threshold) == expected


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(tasks(st.one_of(CHINESE, ENGLISH), least_answers=1))
def test_agrees_with_cmrc(drawn: tuple[Any, ...]) -> None:
    answers, predictions, _ = drawn
    pairs = [reference_cmrc(predictions[question], texts) for question, texts in answers.items()]
    exact, f1 = per_question(predictions, answers, "cmrc")
    assert list(zip(exact.tolist(), f1.tolist(), strict=True)) == pairs
    scores = cmrc_scores(predictions, answers)
    assert scores["exact_match"] == sum(exact for exact, _ in pairs) / len(pairs)
    assert scores["f1"] == sum(f1 for _, f1 in pairs) / len(pairs)


@settings(max_examples=100, deadline=None)
@given(CHINESE, CHINESE, st.booleans())
def test_cmrc_segments(first: str, second: str, drop: bool) -> None:
    assert mixed_segmentation(first, drop) == reference_segmentation(first, drop)
    assert find_lcs(list(first), list(second)) == reference_lcs(list(first), list(second))


def test_squad_golden_cases() -> None:
    assert normalize_answer("  The U.S.A.'s  (an) theatre,\tA+ ") == "usas theatre"
    assert exact_match("the Denver Broncos!", ["Broncos", "Denver  broncos"]) == 1
    assert exact_match("Denver", ["Broncos"]) == 0
    # Predicted 3 words, gold 2, both in common: precision 2/3, recall 1.
    assert token_f1("Denver Broncos won", ["The Denver Broncos", "Santa Clara"]) == pytest.approx(0.8)
    # A repeated word counts as often as both have it.
    assert token_f1("very very good", ["very good good"]) == pytest.approx(2 / 3)
    predictions = {"1": "Denver Broncos won", "2": "1999", "9": "no such question"}
    scores = squad_scores(predictions, {"1": ["Denver Broncos"], "2": ["1999"]})
    assert scores == {"exact_match": 0.5, "f1": pytest.approx(0.9)}


def test_two_empty_texts_agree_in_v2_only() -> None:
    predictions, answers = {"1": "the"}, {"1": ["A."]}
    assert squad_scores(predictions, answers) == {"exact_match": 1, "f1": 0}
    scores = squad_v2_scores(predictions, answers)
    assert scores == {"exact_match": 1, "f1": 1, "has_answer_exact_match": 1, "has_answer_f1": 1}


def test_squad_v2_golden_case() -> None:
    answers = {"a": ["Paris"], "b": ["the red house"], "c": [], "d": []}
    predictions = {"a": "Paris", "b": "red", "c": "London", "d": ""}
    probabilities = {"a": 0.1, "b": 0.6, "c": 0.7, "d": 0.9}
    # Above 0.5 no answer is given: b is lost, c and d are right.
    assert squad_v2_scores(predictions, answers, probabilities, 0.5) == pytest.approx(
        {
            "exact_match": 3 / 4,
            "f1": 3 / 4,
            "has_answer_exact_match": 1 / 2,
            "has_answer_f1": 1 / 2,
            "no_answer_exact_match": 1,
            "no_answer_f1": 1,
            "best_exact_match": 3 / 4,
            "best_exact_match_threshold": 0.1,
            "best_f1": (2 + 1 + 2 / 3) / 4,
            "best_f1_threshold": 0.6,
        }
    )
    # A probability equal to the threshold does not exceed it.
    at_threshold = squad_v2_scores(predictions, answers, probabilities, 0.6)
    assert at_threshold["has_answer_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert squad_v2_scores(predictions, answers)["f1"] == pytest.approx((1 + 2 / 3 + 0 + 1) / 4)
    exact, f1 = per_question(predictions, answers, "squad_v2")
    assert exact.tolist() == [1, 0, 0, 1]
    assert f1.tolist() == [1, pytest.approx(2 / 3), 0, 1]


def test_cmrc_golden_cases() -> None:
    assert mixed_segmentation(" 1998年，iPhone 5s ") == ["1998", "年", "，", "iphone", "5s"]
    assert mixed_segmentation("《a-b》3.5%", drop_punctuation=True) == ["ab3.5", "%"]
    assert remove_punctuation("「北京」……Yes.") == "北京……yes."
    assert find_lcs(list("天安门广场"), list("北京天安门")) == 3
    assert find_lcs([], list("北京")) == find_lcs(list("天"), []) == 0
    assert cmrc_exact_match("《北京》。", ["上海", "北京"]) == 1
    assert cmrc_exact_match("北京市", ["北京"]) == 0
    # A common run of 3 characters out of 5 predicted and 5 gold; common characters apart do not count.
    assert cmrc_f1("北京天安门", ["天安门广场", "东京"]) == pytest.approx(0.6)
    assert cmrc_f1("甲乙丙", ["丙乙甲"]) == pytest.approx(1 / 3)
    assert cmrc_f1("", ["北京"]) == cmrc_f1("。", ["北京"]) == 0
    # A common run of 2 out of 3 and 2: 0.8. The second question has no prediction.
    scores = cmrc_scores({"1": "北京市"}, {"1": ["北京"], "2": ["x"]})
    assert scores == {"exact_match": 0, "f1": pytest.approx(0.4)}


def test_refuses() -> None:
    with pytest.raises(ValueError, match="no questions"):
        squad_scores({}, {})
    for rules in ("squad", "cmrc"):
        with pytest.raises(ValueError, match=r"question 'q2' has no gold answer"):
            per_question({}, {"q1": ["x"], "q2": []}, rules)
    with pytest.raises(ValueError, match="1 questions have no prediction, the first is 'q2'"):
        squad_v2_scores({"q1": "x"}, {"q1": ["x"], "q2": []})
    with pytest.raises(ValueError, match="2 questions have no no-answer probability, the first is 'q1'"):
        squad_v2_scores({"q1": "x", "q2": ""}, {"q1": ["x"], "q2": []}, {})


@pytest.mark.slow
@pytest.mark.timeout(60)  # a second on a quiet machine
def test_scoring_10_000_questions() -> None:
    rng = random.Random(0)
    words = [f"Word{number}," for number in range(5000)] + ["the", "a"] * 1000
    characters = [chr(code) for code in range(0x4E00, 0x5000)]

    def english() -> str:
        return " ".join(rng.choices(words, k=rng.randint(1, 7)))

    def chinese() -> str:
        return "".join(rng.choices(characters, k=rng.randint(1, 20))) + f"{rng.randrange(10**9)}\u5e74"

    for text, score in ((english, squad_scores), (english, squad_v2_scores), (chinese, cmrc_scores)):
        answers = {str(number): [text(), text(), text()] for number in range(10_000)}
        predictions = {question: texts[1] if rng.random() < 0.5 else text() for question, texts in answers.items()}
        scores = score(predictions, answers)
        assert 0.45 < scores["f1"] < 0.6


def test_where_answering_nothing_is_best_the_carried_threshold_lies_below_every_score() -> None:
    """Scores are differences of logits, most of them below 0: the official threshold would answer most questions."""
    gold = [["Oslo"], ["Rome"], *[[]] * 5]
    given = ["Bergen", "Paris", *["Oslo"] * 5]
    doubts = [-3.0, -9.0, -2.0, -1.5, 0.5, -4.0, -7.0]
    scores = Metric({"rules": "squad_v2", "threshold": 0.0})
    table = scores.table(given, gold, no_answer_score=doubts)
    validation = scores.score(table)
    assert validation["best_f1"] == pytest.approx(5 / 7)  # 0.71
    assert validation["best_f1_threshold"] == 0.0  # the official scorer's
    assert validation["no_answer_threshold"] < min(doubts)
    assert validation["f1"] == pytest.approx(1 / 7)
    applied = Metric({"rules": "squad_v2", "threshold": validation["no_answer_threshold"]}).score(table)
    assert applied["f1"] == validation["best_f1"]


def test_the_carried_threshold_is_the_official_one_where_some_questions_are_answered() -> None:
    metric = Metric({"rules": "squad_v2"})
    scores = metric.score(metric.table(["Oslo", "Rome"], [["Oslo"], []], no_answer_score=[-3.0, 1.0]))
    assert scores["no_answer_threshold"] == scores["best_f1_threshold"] == -3.0
    assert scores["best_f1"] == 1.0
