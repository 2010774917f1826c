"""Divergence: a run ends at the step whose loss or gradient is not finite, and says which examples it saw."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch

from research.training.attempt import Attempt
from research.training.module import TaskModule


class Divergence(L.Callback):
    """Looks at the loss where that is free: at each step on a CPU, elsewhere at those that are logged."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if module.is_logged:
            self._refuse(module, module.global_loss(), batch)
        elif module.device.type == "cpu":
            self._refuse(module, module.last_loss, batch)

    def _refuse(self, module: TaskModule, loss: torch.Tensor, batch: Any) -> None:
        """Raise Diverged unless this step's loss is finite and, but for fp16 that scales it, so is its gradient."""
        norm = float(module.last_norm)
        if math.isfinite(float(loss)) and (module.scaler is not None or math.isfinite(norm)):
            return
        splits = module.data.splits
        ids = [each for name in ("train", "unlabelled") if name in splits for each in splits[name].rows["id"]]
        rows = [int(row) for part in batch.rows for row in part]
        named = ", ".join(str(ids[row]) for row in rows[:10]) + (", ..." if len(rows) > 10 else "")
        what = f"loss is {float(loss)} and the gradient's norm {norm}"
        raise self.attempt.diverged(f"{what} at step {module.step} (examples {named})")
