"""Dataset cartography (Swayamdipta et al. 2020): which examples a model learns early, late, or never.

Over the evaluations of training, an example's confidence is the mean probability of its gold answer, its variability
the standard deviation of that probability, its correctness the share of evaluations that got it right. The paper maps
training examples; here they are those of validation, whose predictions every evaluation writes. Where a task gives
no probability of the gold answer (NER, QA) the example's score stands for it.

Legend: E evaluations, N examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from research.metrics.examples import Examples, Floats
from research.report.records import Record
from research.tracking.predictions import known_metric

REGION_SHARE = 1 / 3  # of the examples, as in the paper's figures
LEAST_EVALUATIONS = 2


@dataclass(frozen=True)
class Map:
    ids: list[str]
    confidence: Floats  # (N,)
    variability: Floats  # (N,)
    correctness: Floats  # (N,)
    examples: Examples  # of the last evaluation

    @property
    def regions(self) -> dict[str, np.ndarray]:
        """Indices (N / 3,) of the easiest, the most ambiguous and the hardest third, the clearest cases first.

        Easy: high confidence; hard: low confidence; ambiguous: high variability. As in the paper, they may overlap.
        """
        size = max(1, round(len(self.ids) * REGION_SHARE))
        return {
            "easy": np.argsort(-self.confidence, kind="stable")[:size],
            "ambiguous": np.argsort(-self.variability, kind="stable")[:size],
            "hard": np.argsort(self.confidence, kind="stable")[:size],
        }


def of_run(record: Record) -> Map | None:
    """The map of a run that kept the predictions of two or more evaluations (trainer.keep_predictions), else None."""
    splits = [name for name in record.splits if name.startswith(f"{record.watched_split}-")]
    if len(splits) < LEAST_EVALUATIONS:
        return None
    tables = [record.predictions(name) for name in splits]
    metric = known_metric(tables[0])
    return None if metric is None else of_evaluations([metric.examples(table) for table in tables])


def of_evaluations(evaluations: list[Examples]) -> Map:
    """The map of E evaluations of the same examples, in the order of training."""
    belief = np.stack([each.belief for each in evaluations])  # (E, N)
    right = np.stack([each.right for each in evaluations])  # (E, N)
    last = evaluations[-1]
    return Map(last.ids, belief.mean(0), belief.std(0), right.mean(0), last)
