"""What the tasks share that score labels by a pretrained head: calibration by texts without content.

Zhao et al. 2021, Calibrate Before Use. The probabilities of the labels are divided by their mean for the texts
"N/A", "[MASK]" and "", in the place of both where a text is a pair, and normalised; in training they are as they are.

Shapes: E examples, C labels.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from research.batching.pack import MicroBatch, pack
from research.batching.store import Store
from research.tasks.classification import Module as ClassificationModule

CONTENT_FREE = ("N/A", "[MASK]", "")


class CalibratedModule(ClassificationModule):
    """Classification by `label_scores`, calibrated where `task.calibrate` asks for it."""

    prior: Tensor | None = None  # (C,) log probabilities of texts without content, for the weights as they are

    @abstractmethod
    def label_scores(self, micro: MicroBatch) -> Tensor:
        """Logits of the labels, (E, C), not calibrated."""

    def outputs(self, micro: MicroBatch) -> Tensor:
        scores = self.label_scores(micro)
        if self.training or not self.config.task.calibrate:
            self.prior = None
            return scores
        if self.prior is None:
            self.prior = self._content_free()
        return (scores.log_softmax(-1) - self.prior).log_softmax(-1)

    def loss(self, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        logits, labels = self.outputs(micro), micro.sequences["label"]
        return self.cross_entropy(logits, labels[labels >= 0] if len(labels) > len(logits) else labels), logits

    def _content_free(self) -> Tensor:
        data: Any = self.data
        columns = data.encode({name: list(CONTENT_FREE) for name in data.texts})
        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        names = [name for name in data.token_columns if name in columns]
        store = Store(table, names, data.window_columns)
        micro = pack(store, np.arange(len(CONTENT_FREE)), self.backbone.packed).to(self.device)
        with torch.no_grad():
            return self.label_scores(micro).softmax(-1).mean(0).log()

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.prior = None

    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start
