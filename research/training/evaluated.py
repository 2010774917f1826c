"""What an evaluation has found so far on one rank, and the union over the ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch.distributed as dist


@dataclass
class Evaluated:
    """Predictions by example, and the loss, of this rank's micro-batches."""

    predictions: dict[int, dict[str, Any]] = field(default_factory=dict)
    loss: float = 0.0  # summed over the targets
    targets: float = 0.0  # how many

    def gathered(self, ranks: int) -> tuple[dict[int, dict[str, Any]], float]:
        """The predictions of all ranks and the mean loss over all targets; the same on every rank."""
        own = (self.predictions, [self.loss, self.targets])
        parts: list[Any] = [own]
        if ranks > 1:
            parts = [None] * ranks
            dist.all_gather_object(parts, own)
        merged = {row: prediction for part, _ in parts for row, prediction in part.items()}
        losses = np.array([loss for _, loss in parts], dtype=np.float64).sum(0)
        return merged, float(losses[0] / max(losses[1], 1e-9))
