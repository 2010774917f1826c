"""BERTScore of generated texts, mean over the examples; its values are computed in evaluation and kept in a column.

What computes them is `research.models.bert_score`: a report needs no model.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from research.metrics.base import BaseMetric, Blocks, Formula, ratio
from research.metrics.examples import Floats
from research.metrics.score import Score


class Metric(BaseMetric):
    """Settings: `bertscore`, what decided the values."""

    scores = (Score("bertscore", "BERTScore"),)
    texts = ("source",)
    lengths = ("source",)
    columns = ("target", "bertscore")
    sentence = "BERTScore F1"

    @property
    def signature(self) -> str:
        return f"bertscore|refs:{self.settings.get('references', 1)}, best|{self.settings['bertscore']}"

    def widths(self) -> dict[str, int]:
        return {"bertscore": 2}

    def counts(self, table: pa.Table) -> Blocks:
        """The example's F1, and 1."""
        values = self.example_scores(table)
        return {"bertscore": np.column_stack([values, np.ones(len(values))])}

    def formula(self, name: str) -> Formula | None:
        return Formula((name,), ratio) if name == "bertscore" else None

    def reported(self, sums: Blocks) -> list[str]:
        return ["bertscore"]

    def example_scores(self, table: pa.Table) -> Floats:
        return np.asarray(table.column("bertscore").to_numpy(), dtype=np.float64)
