"""BLEU (Papineni et al. 2002) by the rules of sacrebleu (Post 2018), as a fraction, over one or several references.

Legend: N examples; an example counts 10 numbers: tokens of output and closest reference, matched and all 1- to 4-grams.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import pyarrow as pa

from research.metrics.base import BaseMetric, Blocks, Formula
from research.metrics.examples import Floats
from research.metrics.references import outputs, references
from research.metrics.score import Score
from research.metrics.text_baselines import Answers, copied_source

ORDERS = 4


class Metric(BaseMetric):
    """Corpus BLEU; `settings["bleu_tokenizer"]` is sacrebleu's. Columns: gold (a text or a list) and prediction."""

    scores = (Score("bleu", "BLEU"),)
    texts = ("source",)
    lengths = ("source",)
    columns = ("target",)
    sentence = "BLEU by sacrebleu"

    @property
    def tokenizer(self) -> str:
        return str(self.settings.get("bleu_tokenizer", self.settings.get("tokenizer", "13a")))

    @property
    def signature(self) -> str:
        rules = f"case:mixed|eff:no|tok:{self.tokenizer}|smooth:exp|version:{version('sacrebleu')}"
        return f"bleu|nrefs:{self.settings.get('references', 1)}|{rules}"

    def widths(self) -> dict[str, int]:
        return {"ngrams": 2 + 2 * ORDERS}

    def counts(self, table: pa.Table) -> Blocks:
        """`ngrams`: tokens of output and closest reference, matched n-grams, all n-grams."""
        from sacrebleu.metrics.bleu import BLEU

        scorer = BLEU(tokenize=self.tokenizer, effective_order=True)  # of one sentence; its counts are the corpus's
        rows = zip(outputs(table), references(table), strict=True)
        found = [scorer.sentence_score(output, golds) for output, golds in rows]
        ngrams = [[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in found]
        return {"ngrams": np.array(ngrams, dtype=np.float64).reshape(-1, 2 + 2 * ORDERS)}

    def baseline_answers(self, table: pa.Table, train: pa.Table | None) -> Answers:
        return copied_source(table)

    def formula(self, name: str) -> Formula | None:
        return Formula(("ngrams",), bleu) if name == "bleu" else None

    def reported(self, sums: Blocks) -> list[str]:
        return ["bleu"]

    def example_scores(self, table: pa.Table) -> Floats:
        """Sentence BLEU over the orders that have n-grams, as sacrebleu's effective order."""
        return bleu(self.counts(table)["ngrams"], effective_order=True)


def bleu(sums: Floats, effective_order: bool = False) -> Floats:
    """BLEU (...) from sums (..., 10); orders without a match are smoothed exponentially (Chen & Cherry 2014, NIST)."""
    out, reference = sums[..., 0], sums[..., 1]
    matched, total = sums[..., 2 : 2 + ORDERS], sums[..., 2 + ORDERS :]
    misses = np.cumsum(matched == 0, axis=-1)
    safe = np.maximum(total, 1)
    precision = np.where(matched > 0, matched, 0.5**misses) / safe
    counted = total > 0 if effective_order else np.ones_like(total, dtype=bool)
    orders = np.maximum(counted.sum(axis=-1), 1)
    mean = np.where(counted, np.log(precision), 0).sum(axis=-1) / orders
    brevity = np.where(out < reference, np.exp(1 - reference / np.maximum(out, 1)), 1.0)
    scored = matched.any(axis=-1) & ((total > 0).all(axis=-1) | effective_order)
    return np.where(scored, brevity * np.exp(mean), 0.0)
