"""Baselines of entities and of answers, worked out by hand."""

from __future__ import annotations

import pyarrow as pa
import pytest
import sacrebleu

from research.metrics.entities import Metric as Entities
from research.metrics.entity_baselines import known_phrases, tagged_again
from research.metrics.regression import Metric as Regression
from research.metrics.relations import Metric as Relations
from research.metrics.squad import Metric as Squad
from research.metrics.squad_baselines import likest_sentence
from research.metrics.text import Metric as Text

TRAIN = pa.table({
    "tokens": [["Anna", "in", "New", "York"], ["York", "won"], ["Anna", "Berg"], ["Paris", "left"], ["Paris", "is"]],
    "gold": [["B-PER", "O", "B-LOC", "I-LOC"], ["B-ORG", "O"], ["B-PER", "I-PER"], ["B-PER", "O"], ["B-LOC", "O"]],
})  # fmt: skip


def test_entities_of_the_training_data_are_found_again_longest_first() -> None:
    phrases = known_phrases(TRAIN)
    assert phrases == {("Anna",): "PER", ("New", "York"): "LOC", ("York",): "ORG", ("Anna", "Berg"): "PER"}
    assert tagged_again([["Anna", "Berg", "in", "New", "York", "York", "Paris"]], phrases) == [
        ["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "B-ORG", "O"]
    ]


def test_scores_of_the_baselines_of_entities() -> None:
    sentences = [["Anna", "left"], ["York", "is", "old"]]
    gold = [["B-PER", "O"], ["B-LOC", "O", "O"]]
    metric = Entities({"labels": ["O", "B-PER", "B-LOC", "B-ORG"]})
    table = metric.table(gold, gold, tokens=sentences)
    found = metric.baselines(table, TRAIN)
    assert found["no entity"]["f1"] == 0.0 and found["no entity"]["accuracy"] == pytest.approx(3 / 5)
    again = found["entities of the training data"]
    assert again["f1"] == pytest.approx(0.5) and again["accuracy"] == pytest.approx(4 / 5)
    assert list(metric.baselines(table)) == ["no entity"]


def test_the_sentence_most_like_the_question() -> None:
    context = "Acme was founded in Oslo. Anna Berg founded the river club in 1990! It closed."
    assert likest_sentence("Who founded the river club?", context) == "Anna Berg founded the river club in 1990!"
    assert likest_sentence("谁在奥斯陆？", "安娜在巴黎。她住在奥斯陆。") == "她住在奥斯陆。"
    assert likest_sentence("why", "") == ""


def test_scores_of_the_baselines_of_answers() -> None:
    columns = {"question": ["Where is Acme?", "Who?"], "context": ["Anna left. Acme is in Oslo.", "Nobody."]}
    metric = Squad({"rules": "squad_v2", "threshold": 0.0})
    table = metric.table(["x", "y"], [["Oslo"], []], no_answer_score=[-1.0, 5.0], **columns)
    found = metric.baselines(table)
    assert found["no answer"]["f1"] == found["no answer"]["exact_match"] == 0.5
    # "Acme is in Oslo": precision 1 / 4, recall 1; the question without an answer gets one
    assert found["sentence most like the question"]["f1"] == pytest.approx(2 * 0.25 / 1.25 / 2)
    plain = Squad({"rules": "squad"})
    assert list(plain.baselines(plain.table(["x"], [["Oslo"]], question=["a"], context=["b"]))) == [
        "sentence most like the question"
    ]


def test_the_most_frequent_answer_is_that_of_the_training_data() -> None:
    train = pa.table({"gold": [["Oslo"], [], ["Rome", "the city of Rome"], ["Rome"], ["the city of Rome"]]})
    columns = {"question": ["a", "b"], "context": ["x", "y"]}
    for metric in (Squad({"rules": "squad_v2"}), Text({"metrics": ["answers"]})):
        table = metric.table(["x", "y"], [["Rome"], ["the old Rome"]], **columns)
        found = metric.baselines(table, train)["most frequent answer"]
        # "old Rome" without its article, against "Rome": precision 1, recall 1 / 2
        assert found["exact_match"] == 0.5 and found["f1"] == pytest.approx((1 + 2 / 3) / 2)
        assert "most frequent answer" not in metric.baselines(table)


def test_texts_have_the_source_and_its_first_sentences() -> None:
    metric = Text({"metrics": ["rouge", "bleu"]})
    sources = ["One is a. Two is b! Three is c? Four is d.", "a: first\nb: second\na: third\nb: fourth"]
    golds = ["Two is b! Three is c?", "a: first\nb: second\na: third"]
    table = metric.table(["", ""], golds, source=sources, ended=[False, False])
    found = metric.baselines(table)
    assert list(found) == ["lead-3", "copied source"]
    # 6 of 9 words, all 6 of the gold; then the gold itself
    assert found["lead-3"]["rouge_1"] == pytest.approx((2 * 6 / 15 + 1) / 2)
    assert found["copied source"]["rouge_1"] == pytest.approx((2 * 6 / 18 + 2 * 6 / 14) / 2)
    assert found["copied source"]["copy_rate"] == found["lead-3"]["ended"] == 1
    assert found["copied source"]["bleu"] == pytest.approx(
        sacrebleu.corpus_bleu([text.replace("\n", " ") for text in sources], [golds]).score / 100
    )
    assert metric.baselines(metric.table([""], ["Oslo"], question=["Where?"])) == {}


def test_numbers_have_their_mean() -> None:
    metric = Regression({})
    found = metric.baselines(metric.table([0.0, 0.0, 0.0], [1.0, 2.0, 6.0]))["mean"]
    assert found["mae"] == pytest.approx((2 + 1 + 3) / 3) and found["rmse"] == pytest.approx((14 / 3) ** 0.5)
    assert found["pearson"] == 0.0


def test_relations_have_the_baselines_of_labels() -> None:
    metric = Relations({"labels": ["A(e1,e2)", "A(e2,e1)", "Other"], "other": "Other"})
    gold = ["A(e1,e2)"] * 3 + ["Other"]
    found = metric.baselines(metric.table(gold, gold))
    assert found["most frequent label"]["accuracy"] == 0.75
    assert found["random by class prior"]["accuracy"] == pytest.approx(0.75**2 + 0.25**2)
    # A: 3 found of 4 predicted and 3 gold
    assert found["most frequent label"]["f1"] == pytest.approx(2 * 3 / (4 + 3))
