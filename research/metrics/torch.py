"""Any metric of this folder as a `torchmetrics.Metric`: exact over batches and ranks, for anyone's LightningModule.

    self.f1 = research.metrics.torch.metric("entities", score="f1", labels=["O", "B-PER", "I-PER"])
    ...
    self.f1.update(predicted_tags, gold_tags)      # each a list of sentences
    self.log("validation/f1", self.f1)

Its state are the summed counts, which ranks add up: no example counts twice and none is left out, whatever the batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torchmetrics
from torch import Tensor

from research.metrics import metric_class


def metric(name: str, score: str | None = None, **settings: Any) -> ScoresOfCounts:
    """The metric `name`; `settings` as in a predictions file: labels, rules, threshold.

    `compute` gives all scores by name, or the one that `score` names, which is what `self.log` takes. Raises UserError
    for an unknown metric or score.
    """
    return ScoresOfCounts(name, score, settings)


class ScoresOfCounts(torchmetrics.Metric):
    """Scores as a function of counts that are summed over examples, batches and ranks."""

    is_differentiable = False
    full_state_update = False
    sums: Tensor  # (K,) float64, the metric's blocks end to end

    def __init__(self, name: str, score: str | None, settings: dict[str, Any]) -> None:
        super().__init__()
        self.metric, self.score = metric_class(name)(settings), score
        if score is not None:
            self.metric.score_named(score)
        self.widths = self.metric.widths()
        zeros = torch.zeros(sum(self.widths.values()), dtype=torch.float64)
        self.add_state("sums", zeros, dist_reduce_fx="sum")

    def update(self, predictions: Sequence[Any] | Tensor, golds: Sequence[Any] | Tensor, **columns: Any) -> None:
        """Count a batch. `columns`: what the metric needs beside, such as `no_answer_score`.

        Raises ValueError for a class that the settings do not declare, and for what the metric refuses.
        """
        lists = [x.tolist() if isinstance(x, Tensor) else list(x) for x in (predictions, golds)]
        if not lists[1]:
            return
        sums = self.metric.sums(self.metric.table(*lists, **columns), self._blocks())
        if undeclared := sorted(set(sums) - set(self.widths)):
            raise ValueError(f"{undeclared} are not among the declared classes; give all of them as `labels`")
        flat = np.concatenate([sums[name] for name in self.widths])
        self.sums = torch.from_numpy(flat).to(self.sums.device)

    def compute(self) -> Tensor | dict[str, Tensor]:
        """All scores by name, or the one that was asked for, in float64."""
        scores = self.metric.scores_of(self._blocks())
        if self.score is not None:
            return torch.tensor(scores.get(self.score, 0.0), dtype=torch.float64)
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in scores.items()}

    def _blocks(self) -> dict[str, np.ndarray]:
        """The sums by block."""
        ends = np.cumsum(list(self.widths.values()))
        return dict(zip(self.widths, np.split(self.sums.cpu().numpy(), ends[:-1]), strict=True))
