"""Translation edit rate (Snover et al. 2006) by the rules of sacrebleu: edits and shifts to the closest reference,
divided by the mean length of the references; smaller is better, and more than 1 is possible."""

from __future__ import annotations

from importlib.metadata import version

import pyarrow as pa

from research.common import compat
from research.metrics.base import BaseMetric, Blocks, Formula, ratio
from research.metrics.examples import Floats
from research.metrics.references import outputs, references
from research.metrics.score import Score
from research.metrics.text_baselines import Answers, copied_source


class Metric(BaseMetric):
    """Corpus TER. Its time grows with the square of the length of a text and more: for sentences."""

    scores = (Score("ter", "TER", smaller_is_better=True, high=float("inf")),)
    texts = ("source",)
    lengths = ("source",)
    columns = ("target",)
    sentence = "TER by sacrebleu"

    @property
    def signature(self) -> str:
        rules = f"case:lc|tok:tercom|norm:no|punct:yes|asian:no|version:{version('sacrebleu')}"
        return f"ter|nrefs:{self.settings.get('references', 1)}|{rules}"

    def widths(self) -> dict[str, int]:
        return {"edits": 2}

    def counts(self, table: pa.Table) -> Blocks:
        """`edits`: to the closest reference, and the mean length of the references in words."""
        from sacrebleu.metrics.ter import TER

        return {"edits": compat.sacrebleu_statistics(TER(), outputs(table), references(table)).reshape(-1, 2)}

    def baseline_answers(self, table: pa.Table, train: pa.Table | None) -> Answers:
        return copied_source(table)

    def formula(self, name: str) -> Formula | None:
        return Formula(("edits",), ratio) if name == "ter" else None

    def reported(self, sums: Blocks) -> list[str]:
        return ["ter"]

    def example_scores(self, table: pa.Table) -> Floats:
        """1 - TER, not below 0, so that 1 is right as for every metric."""
        scores: Floats = (1 - ratio(self.counts(table)["edits"])).clip(0, 1)
        return scores
