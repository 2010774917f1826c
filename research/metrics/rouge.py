"""ROUGE-1, -2, -L and -Lsum (Lin 2004) by the package `rouge-score`: F1 of an example, mean over the examples.

Of several references the one of best F1 counts. `rouge-score` knows ASCII words alone: other languages are cut into
words of any script, and Chinese, Japanese and Thai into characters (tokenizer `words`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from research.metrics.base import BaseMetric, Blocks, Formula, ratio
from research.metrics.examples import Floats
from research.metrics.references import outputs, references
from research.metrics.score import Score
from research.metrics.text_baselines import Answers, lead, sentences

KINDS = {"rouge_l": "rougeL", "rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_lsum": "rougeLsum"}
UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Thai, kana, Han
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+(?:[\u0900-\u0dff]+[^\W{UNSPACED}]*)*")  # with Indic vowel signs


class Words:
    """Cuts a text of any script: lower case, words of letters and digits, characters of scripts without spaces."""

    def tokenize(self, text: str) -> list[str]:
        return WORD.findall(text.lower())


class Metric(BaseMetric):
    """Settings: `rouge_tokenizer` (english or words) and `rouge_stemmer` (Porter's, of English words)."""

    scores = (
        Score("rouge_l", "ROUGE-L"), Score("rouge_1", "ROUGE-1"), Score("rouge_2", "ROUGE-2"),
        Score("rouge_lsum", "ROUGE-Lsum"),
    )  # fmt: skip
    texts = ("source",)
    lengths = ("source",)
    columns = ("target",)
    sentence = "ROUGE F1 by rouge-score"

    @property
    def signature(self) -> str:
        rules = f"tok:{self.tokenizer}|stem:{'porter' if self.stems else 'no'}|sentences:newline, else .!?"
        return f"rouge|refs:{self.settings.get('references', 1)}, best|{rules}|version:{version('rouge-score')}"

    @property
    def tokenizer(self) -> str:
        return str(self.settings.get("rouge_tokenizer", "english"))

    @property
    def stems(self) -> bool:
        return self.tokenizer == "english" and bool(self.settings.get("rouge_stemmer", True))

    @cached_property
    def scorer(self) -> Any:
        from rouge_score.rouge_scorer import RougeScorer

        tokenizer = None if self.tokenizer == "english" else Words()
        return RougeScorer(list(KINDS.values()), use_stemmer=self.stems, tokenizer=tokenizer)

    def widths(self) -> dict[str, int]:
        return dict.fromkeys(KINDS, 2)

    def counts(self, table: pa.Table) -> Blocks:
        """For each score its F1 on the example, and 1."""
        rows = zip(outputs(table), references(table), strict=True)
        found = np.array([self.example(output, golds) for output, golds in rows]).reshape(-1, len(KINDS))
        ones = np.ones(len(found))
        return {name: np.column_stack([found[:, i], ones]) for i, name in enumerate(KINDS)}

    def example(self, output: str, golds: Sequence[str]) -> list[float]:
        """F1 of one output, in the order of `KINDS`."""
        found = self.scorer.score_multi([lines(gold) for gold in golds], lines(output))
        return [found[kind].fmeasure for kind in KINDS.values()]

    def baseline_answers(self, table: pa.Table, train: pa.Table | None) -> Answers:
        return lead(table)

    def formula(self, name: str) -> Formula | None:
        return Formula((name,), ratio) if name in KINDS else None

    def reported(self, sums: Blocks) -> list[str]:
        return list(KINDS)

    def example_scores(self, table: pa.Table) -> Floats:
        scores: Floats = self.counts(table)["rouge_l"][:, 0]
        return scores


def lines(text: str) -> str:
    """A sentence a line, as ROUGE-Lsum reads them."""
    return "\n".join(sentences(text))
