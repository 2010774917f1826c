"""chrF (Popović 2015) and chrF++ (2017) by the rules of sacrebleu, as fractions, with the best of the references.

Legend: an example counts 3 numbers for each order: n-grams of output and reference, matched ones.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import pyarrow as pa

from research.common import compat
from research.metrics.base import BaseMetric, Blocks, Formula
from research.metrics.examples import Floats
from research.metrics.references import outputs, references
from research.metrics.score import Score
from research.metrics.text_baselines import Answers, copied_source

CHARACTER_ORDERS, WORD_ORDERS, BETA = 6, 2, 2


class Metric(BaseMetric):
    """F-score of character n-grams; chrF++ counts single words and pairs too."""

    scores = (Score("chrf", "chrF"), Score("chrf_plus_plus", "chrF++"))
    texts = ("source",)
    lengths = ("source",)
    columns = ("target",)
    sentence = "chrF and chrF++ by sacrebleu"

    @property
    def signature(self) -> str:
        rules = f"case:mixed|eff:yes|nc:{CHARACTER_ORDERS}|nw:0, {WORD_ORDERS}|space:no|version:{version('sacrebleu')}"
        return f"chrf|nrefs:{self.settings.get('references', 1)}|{rules}"

    def widths(self) -> dict[str, int]:
        return {"chrf": 3 * CHARACTER_ORDERS, "chrf_plus_plus": 3 * (CHARACTER_ORDERS + WORD_ORDERS)}

    def counts(self, table: pa.Table) -> Blocks:
        """N-grams of output, reference and both, by order; of the reference that scores best."""
        from sacrebleu.metrics.chrf import CHRF

        texts, golds = outputs(table), references(table)
        words = {"chrf": 0, "chrf_plus_plus": WORD_ORDERS}
        return {
            name: compat.sacrebleu_statistics(CHRF(word_order=order), texts, golds).reshape(-1, self.widths()[name])
            for name, order in words.items()
        }

    def baseline_answers(self, table: pa.Table, train: pa.Table | None) -> Answers:
        return copied_source(table)

    def formula(self, name: str) -> Formula | None:
        return Formula((name,), chrf) if name in self.widths() else None

    def reported(self, sums: Blocks) -> list[str]:
        return list(self.widths())

    def example_scores(self, table: pa.Table) -> Floats:
        return chrf(self.counts(table)["chrf"])


def chrf(sums: Floats) -> Floats:
    """F-score (...) from sums (..., 3 × orders): of mean precision and recall of the orders that both texts have."""
    found, gold, matched = (sums[..., i::3] for i in range(3))
    both = (found > 0) & (gold > 0)
    orders = np.maximum(both.sum(axis=-1), 1)
    precision = np.where(both, matched / np.maximum(found, 1), 0).sum(axis=-1) / orders
    recall = np.where(both, matched / np.maximum(gold, 1), 0).sum(axis=-1) / orders
    total = BETA**2 * precision + recall
    score: Floats = (1 + BETA**2) * precision * recall / np.where(total > 0, total, 1)
    return score
