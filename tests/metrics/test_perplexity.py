"""Perplexity by hand."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from research.metrics.perplexity import Metric

TABLE = pa.table({
    "id": ["a", "b"], "text": ["good film", "bad"], "gold": [3, 1], "prediction": [1.0, 0.5], "nll": [3.0, 0.5],
    "tokens": [3, 1], "words": [2, 1], "bytes": [9, 3], "next_right": [1, 0], "next_pairs": [1, 1],
})  # fmt: skip


def test_perplexity_per_token_word_and_byte() -> None:
    metric = Metric({"conditions": ["stride:4", "eos:no"]})
    assert metric.score(TABLE) == pytest.approx(
        {"perplexity": math.exp(3.5 / 4), "word_perplexity": math.exp(3.5 / 3), "byte_perplexity": math.exp(3.5 / 12)}
    )
    assert metric.signature == "perplexity|stride:4|eos:no"
    counts = metric.count(TABLE, "perplexity")
    np.testing.assert_array_equal(counts.values, [[3.0, 3, 2, 9], [0.5, 1, 1, 3]])
    assert counts.metric == pytest.approx(math.exp(3.5 / 4))
    assert metric.examples(TABLE).score == pytest.approx([math.exp(-1), math.exp(-0.5)])
    assert metric.score_named("perplexity").smaller_is_better


def test_of_masked_tokens_only_the_first_is_reported() -> None:
    metric = Metric({"masked": True, "next_sentence": True})
    assert metric.score(TABLE) == pytest.approx({"perplexity": math.exp(3.5 / 4), "next_sentence_accuracy": 0.5})
