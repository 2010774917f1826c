"""What generated texts look like, whatever is right: length, variety, repetition, copying, and whether they ended.

Words are those of any script, in lower case. Each score is a ratio of sums over the examples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from research.metrics.base import BaseMetric, Blocks, Formula, ratio
from research.metrics.references import outputs, references
from research.metrics.rouge import Words
from research.metrics.score import Score

REPEATED = 4  # words of an n-gram that should not occur twice
COPIED = 3  # words of an n-gram of the source


class Metric(BaseMetric):
    """Settings decide nothing. The columns are gold, prediction, ended and the source."""

    scores = (
        Score("length_ratio", "words of outputs / references", high=float("inf")),
        Score("distinct_1", "distinct words"),
        Score("distinct_2", "distinct pairs of words"),
        Score("repetition", "outputs with a repeated 4-gram", smaller_is_better=True, is_proportion=True),
        Score("copy_rate", "3-grams of outputs that occur in the source"),
        Score("ended", "outputs that ended by themselves", is_proportion=True),
    )
    texts = ("source",)
    lengths = ("source",)
    columns = ("target", "ended", "stopped_by")
    signature = "outputs|words:any script|distinct:within an output|repeated:4-gram|copied:3-gram"
    sentence = "statistics of the outputs"

    def widths(self) -> dict[str, int]:
        return {score.name: 2 for score in self.scores}

    def counts(self, table: pa.Table) -> Blocks:
        """For each score two numbers whose sums it is the ratio of."""
        words = Words().tokenize
        sources = table.column("source").to_pylist() if "source" in table.column_names else [""] * table.num_rows
        ended = table.column("ended").to_pylist() if "ended" in table.column_names else [True] * table.num_rows
        rows = []
        for output, golds, source, end in zip(outputs(table), references(table), sources, ended, strict=True):
            mine = words(output)
            closest = min((len(words(gold)) for gold in golds), key=lambda n: (abs(n - len(mine)), n))
            pairs, fours, copied = (ngrams(mine, n) for n in (2, REPEATED, COPIED))
            seen = set(ngrams(words(source or ""), COPIED))
            rows.append(
                [
                    (len(mine), closest), (len(set(mine)), len(mine)), (len(set(pairs)), len(pairs)),
                    (len(set(fours)) < len(fours), 1), (sum(gram in seen for gram in copied), len(copied)), (end, 1),
                ]
            )  # fmt: skip
        found = np.array(rows, dtype=np.float64).reshape(-1, len(self.scores), 2)
        return {score.name: found[:, i] for i, score in enumerate(self.scores)}

    def formula(self, name: str) -> Formula | None:
        return Formula((name,), ratio) if name in self.widths() else None

    def reported(self, sums: Blocks) -> list[str]:
        return list(self.widths())


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Every run of n words."""
    return list(zip(*(words[i:] for i in range(n)), strict=False))
