"""Scores of generated text against the official scorers: several references, sums of counts, other scripts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from research.metrics import answers, metric_of, outputs, rouge, text
from research.metrics.base import BaseMetric

WORDS = ["the", "a", "cat", "dogs", "sat", "on", "mat", ".", ",", "big-small", "3.5", "it's", "running"]
TEXT = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)
EXAMPLE = st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3))
KINDS = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL", "rouge_lsum": "rougeLsum"}


def table(rows: list[tuple[str, list[str]]], **columns: list[object]) -> pa.Table:
    return text.Metric({"metrics": ["bleu"]}).table([row[0] for row in rows], [row[1] for row in rows], **columns)


def metric(*names: str, **own: object) -> BaseMetric:
    return metric_of({"scorer": "text", "metrics": list(names), **own})


@pytest.mark.slow
@given(st.lists(EXAMPLE, min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_equals_sacrebleu_with_any_number_of_references(rows: list[tuple[str, list[str]]]) -> None:
    """sacrebleu takes streams of references, with None where an example has fewer."""
    texts, golds = [row[0] for row in rows], [row[1] for row in rows]
    streams = [[each[k] if k < len(each) else None for each in golds] for k in range(max(map(len, golds)))]
    scored = metric("bleu", "chrf", "ter").score(table(rows))
    official = {"bleu": BLEU(), "chrf": CHRF(), "chrf_plus_plus": CHRF(word_order=2), "ter": TER()}
    for name, scorer in official.items():
        assert scored[name] == pytest.approx(scorer.corpus_score(texts, streams).score / 100, abs=1e-9), name


@given(st.lists(EXAMPLE, min_size=1, max_size=5), st.booleans())
@settings(max_examples=30, deadline=None)
def test_equals_rouge_score_on_english(rows: list[tuple[str, list[str]]], stem: bool) -> None:
    scorer = RougeScorer(list(KINDS.values()), use_stemmer=stem)
    lines = [(output.replace(" . ", " .\n"), [gold.replace(" . ", " .\n") for gold in golds]) for output, golds in rows]
    scored = metric("rouge", rouge_stemmer=stem).score(table(lines))
    for name, kind in KINDS.items():
        found = [scorer.score_multi(golds, output)[kind].fmeasure for output, golds in lines]
        if name != "rouge_lsum" or all("\n" in t for output, golds in lines for t in (output, *golds)):
            assert scored[name] == pytest.approx(np.mean(found), abs=1e-12), name


def test_the_score_of_a_resample_is_that_of_its_examples() -> None:
    """The paired bootstrap sums rows of counts; it never averages scores of sentences."""
    rows = [("the cat sat .", ["the cat sat on the mat ."]), ("a dog", ["a dog sat"]), ("big cat", ["a cat"])]
    drawn = [0, 0, 2]
    whole = metric("bleu", "chrf", "ter", "rouge", "answers")
    expected = whole.score(table([rows[i] for i in drawn]))
    for name in ("bleu", "chrf", "chrf_plus_plus", "ter", "rouge_l", "f1", "length_ratio"):
        counts = whole.count(table(rows), name)
        assert float(counts.score(counts.values[drawn].sum(axis=0))) == pytest.approx(expected[name], abs=1e-12), name


def test_the_order_of_the_examples_changes_no_score() -> None:  # fault 21: references transposed
    rows = [(f"the {w} sat on a mat", [f"a {w} sat", f"the {w} sat on the mat"]) for w in WORDS[:5]]
    scorer = metric("bleu", "chrf", "rouge")
    assert scorer.score(table(rows)) == pytest.approx(scorer.score(table(rows[::-1])), abs=1e-12)


@pytest.mark.parametrize("same", ["我喜歡貓和狗。", "นี่คือแมว", "यह एक बिल्ली है", "Das Mädchen ist größer"])
def test_identical_texts_of_any_script_score_1(same: str) -> None:  # fault 22: ROUGE 0 on Chinese
    scored = metric("rouge", rouge_tokenizer="words").score(table([(same, [same])]))
    assert scored["rouge_1"] == scored["rouge_l"] == 1.0
    assert "tok:words" in metric("rouge", rouge_tokenizer="words").signature


def test_words_keep_their_letters() -> None:
    tokenize = rouge.Words().tokenize
    assert tokenize("Das Mädchen, größer!") == ["das", "mädchen", "größer"]
    assert tokenize("我喜歡cats") == ["我", "喜", "歡", "cats"]
    assert tokenize("यह बिल्ली है") == ["यह", "बिल्ली", "है"]


def test_rouge_lsum_parts_sentences_where_a_text_has_no_lines() -> None:
    output, gold = "The cat sat. A dog ran.", "A dog ran. The cat sat."
    scored = metric("rouge").score(table([(output, [gold])]))
    lines = RougeScorer(["rougeLsum"], use_stemmer=True).score(gold.replace(". ", ".\n"), output.replace(". ", ".\n"))
    assert scored["rouge_lsum"] == lines["rougeLsum"].fmeasure == 1.0 and scored["rouge_l"] == 0.5


def test_answers_are_compared_by_the_rules_of_squad_with_the_best_of_several() -> None:
    rows = [("The Oslo!", ["Bergen", "oslo"]), ("a big city", ["the city of Oslo"]), ("no", ["yes"])]
    scored = metric("answers").score(table(rows))
    assert scored["exact_match"] == pytest.approx(1 / 3) and scored["f1"] == pytest.approx((1 + 2 / 5 + 0) / 3)
    chinese = answers.Metric({"rules": "cmrc"}).score(table([("北京市", ["北京"])]))
    assert chinese["f1"] == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))


def test_statistics_of_the_outputs_by_hand() -> None:
    rows = [("a b a b a b a b", ["a b c"]), ("x y z", ["x y", "x y z w"])]
    columns: Any = {"ended": [False, True], "source": ["q b a b", "q x y z"]}
    scored = outputs.Metric({}).score(table(rows, **columns))
    assert scored["length_ratio"] == 11 / (3 + 2)  # of two references as close, the shorter
    assert scored["distinct_1"] == (2 + 3) / (8 + 3) and scored["distinct_2"] == (2 + 2) / (7 + 2)
    assert scored["repetition"] == 0.5 and scored["ended"] == 0.5
    assert scored["copy_rate"] == (3 + 1) / (6 + 1)  # bab three times, and xyz


def test_an_empty_output_scores_nothing_and_breaks_nothing() -> None:
    scored = metric("bleu", "chrf", "ter", "rouge", "answers").score(table([("", ["a cat"])]))
    assert [scored[name] for name in ("bleu", "chrf", "rouge_l", "f1", "distinct_2")] == [0.0] * 5
    assert scored["ter"] == 1.0


def test_an_example_without_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="example '1' has no reference"):
        metric("bleu").score(table([("a", ["a"]), ("b", [])]))


def test_selections_show_the_best_the_longest_and_the_cut() -> None:
    rows = [("the cat sat on the mat", ["the cat sat on the mat"]), ("a", ["b"]), ("a dog " * 9, ["a dog"])]
    shown = {s.title: s.rows.tolist() for s in metric("bleu").selections(table(rows, ended=[True, True, False]))}
    assert shown["Best examples"][0] == 0
    assert shown["Longest outputs"] == [2, 0, 1] and shown["Outputs cut at the limit"] == [2]
