"""BLEU against sacrebleu itself: corpora, sentences, sums of counts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from research.metrics.bleu import Metric, bleu

WORDS = ["the", "a", "cat", "dog", "sat", "on", "mat", ".", ",", "big-small", "3.5", "it's"]
TEXT = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)


def table(outputs: list[str], golds: list[str]) -> pa.Table:
    return Metric({}).table(outputs, golds)


@pytest.mark.slow
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8))
@settings(max_examples=80, deadline=None)
def test_equals_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    outputs, golds = map(list, zip(*pairs, strict=True))
    expected = BLEU().corpus_score(outputs, [golds]).score / 100
    assert Metric({}).score(table(outputs, golds))["bleu"] == pytest.approx(expected, abs=1e-12)
    sentences = [
        BLEU(effective_order=True).sentence_score(*pair).score / 100
        for pair in zip(outputs, [[g] for g in golds], strict=True)
    ]
    assert Metric({}).example_scores(table(outputs, golds)) == pytest.approx(sentences, abs=1e-12)


def test_counts_of_parts_add_up_to_those_of_the_whole() -> None:
    outputs, golds = (
        ["the cat sat .", "a dog on mat", "big cat"],
        ["the cat sat on the mat .", "a dog on a mat", "a cat"],
    )
    counts = Metric({}).count(table(outputs, golds), "bleu")
    assert counts.values.shape == (3, 10)
    assert counts.metric == pytest.approx(BLEU().corpus_score(outputs, [golds]).score / 100, abs=1e-12)
    resampled = counts.values[[0, 0, 2]].sum(axis=0)
    expected = BLEU().corpus_score([outputs[i] for i in (0, 0, 2)], [[golds[i] for i in (0, 0, 2)]]).score / 100
    assert float(counts.score(resampled)) == pytest.approx(expected, abs=1e-12)


def test_the_tokenizer_decides_and_is_in_the_signature() -> None:
    outputs, golds = ["我喜歡貓"], ["我喜歡狗狗"]
    assert Metric({"bleu_tokenizer": "13a"}).score(table(outputs, golds))["bleu"] == 0.0
    assert Metric({"bleu_tokenizer": "zh"}).score(table(outputs, golds))["bleu"] > 0.3
    assert Metric({"bleu_tokenizer": "zh"}).signature.startswith(
        "bleu|nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp|version:"
    )


def test_nothing_scores_nothing() -> None:
    assert float(bleu(np.zeros(10))) == 0.0
