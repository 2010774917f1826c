"""Exact match and token F1 of generated answers over one or several gold answers, by the rules of SQuAD or CMRC."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from research.metrics.base import BaseMetric, Blocks, Formula, ratio
from research.metrics.examples import Floats
from research.metrics.references import outputs, references
from research.metrics.score import Score
from research.metrics.squad_question import Rules, question_scores
from research.metrics.text_baselines import Answers, most_frequent_answer


class Metric(BaseMetric):
    """Means over questions of the best match among the answers; `settings["rules"]` is squad (English) or cmrc."""

    scores = (Score("f1", "token F1"), Score("exact_match", "EM", is_proportion=True))
    texts = ("question", "source", "context")
    lengths = ("question", "source", "context")
    columns = ("target", "answers")

    @property
    def rules(self) -> Rules:
        rules: Rules = self.settings.get("rules", "squad")
        return rules

    @property
    def signature(self) -> str:
        return f"answers|average:questions|rules:{self.rules}|refs:{self.settings.get('references', 1)}, best"

    @property
    def sentence(self) -> str:
        return f"exact match and token F1 by the rules of {'CMRC 2018' if self.rules == 'cmrc' else 'SQuAD v1.1'}"

    def widths(self) -> dict[str, int]:
        return {"f1": 2, "exact_match": 2}

    def counts(self, table: pa.Table) -> Blocks:
        rows = zip(outputs(table), references(table), strict=True)
        found = np.array([question_scores(output, golds, self.rules) for output, golds in rows]).reshape(-1, 2)
        ones = np.ones(len(found))
        return {"f1": np.column_stack([found[:, 1], ones]), "exact_match": np.column_stack([found[:, 0], ones])}

    def baseline_answers(self, table: pa.Table, train: pa.Table | None) -> Answers:
        return most_frequent_answer(table, train)

    def formula(self, name: str) -> Formula | None:
        return Formula((name,), ratio) if name in self.widths() else None

    def reported(self, sums: Blocks) -> list[str]:
        return list(self.widths())

    def example_scores(self, table: pa.Table) -> Floats:
        scores: Floats = self.counts(table)["f1"][:, 0]
        return scores
