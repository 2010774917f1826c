"""Classification into levels that have an order: stars, grades, severity.

The loss is the cross entropy. With `spread` its targets are spread over the neighbouring levels, as the softmax of
-(distance / spread)^2 (Diaz & Marathe 2019), so that a near miss costs less than a far one.

Shapes: E texts, C levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from research.common.errors import UserError
from research.config.component import at_least, key
from research.config.schema import Config
from research.data.source import Split
from research.tasks.classification import Data as Classification
from research.tasks.classification import Module as ClassificationModule
from research.training.datamodule import Columns


@dataclass
class Keys:
    spread: float = key(0.0, "levels over which the targets are spread in training; 0: none", at_least(0))
    answer: Literal["most_probable", "median"] = key(
        "most_probable", "the level that is predicted; the median errs least in levels"
    )


class Data(Classification):
    metric = "ordinal"

    def collect(self, splits: Sequence[Split]) -> list[str]:
        """The levels, the lowest first: as `data.labels` declares them, else integers in their order.

        Raises UserError where neither says the order.
        """
        labels = super().collect(splits)
        if self.config.data.labels is None and not all(label.removeprefix("-").isdecimal() for label in labels):
            raise UserError(
                f"task ordinal: the labels {', '.join(labels[:10])} are not integers, so their order is not known; "
                "declare it, the lowest first, as in data.labels=[bad, fair, good]"
            )
        return labels

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        columns = super().table(split, predictions)
        if self.config.task.answer == "median":
            cumulated = np.stack(columns["probabilities"]).cumsum(axis=1)  # (E, C)
            columns["prediction"] = [self.labels[i] for i in (cumulated >= 0.5 * cumulated[:, -1:]).argmax(axis=1)]
        return columns


class Module(ClassificationModule):
    monitor = "kappa"

    def __init__(self, config: Config, backbone: Any, data: Data, total_steps: int) -> None:
        super().__init__(config, backbone, data, total_steps)
        if config.task.spread and config.optim.label_smoothing:
            raise UserError("task.spread spreads the targets already; remove optim.label_smoothing.")

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Summed over the texts; the spread, as class weights, applies in training alone."""
        spread = self.config.task.spread
        if not spread or not self.training:
            return super().cross_entropy(logits, targets)
        levels = torch.arange(logits.shape[1], device=logits.device)
        distance = (levels - targets[:, None]) / spread  # (E, C)
        soft = torch.softmax(-(distance**2), dim=1)
        losses = -(torch.log_softmax(logits, dim=1) * soft).sum(dim=1)  # (E,)
        if self.data.class_weights is not None:
            losses = losses * torch.from_numpy(self.data.class_weights).to(losses)[targets]
        return losses.sum()
