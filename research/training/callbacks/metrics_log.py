"""Metrics log: loss, gradient norm, learning rate and speed every `trainer.log_every_steps` steps."""

from __future__ import annotations

import time
from typing import Any

import lightning as L

from research.training.attempt import Attempt
from research.training.module import TaskModule
from research.training.schedule import learning_rate
from research.training.unsmoothed_loss import unsmoothed_loss


class MetricsLog(L.Callback):
    """Counts the time that steps take, evaluations left out, and writes a row of metrics every so many steps."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.counted_until = 0.0
        self.logged = (0, 0.0, 0, 0)  # step, time, tokens and examples at the last row

    def on_train_epoch_start(self, trainer: L.Trainer, module: Any) -> None:
        self.counted_until = time.monotonic()
        self.logged = (module.step, self.counted_until, module.progress.tokens, module.progress.examples)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = time.monotonic()
        module.progress.train_seconds += now - self.counted_until
        self.counted_until = now
        if module.is_logged:
            self._log(module)

    def _log(self, module: TaskModule) -> None:
        loss, p, now = float(module.global_loss()), module.progress, time.monotonic()
        step, since, tokens, examples = self.logged
        seconds = max(now - since, 1e-9)
        self.logged = (p.step, now, p.tokens, p.examples)
        scalars = {
            "train/loss": loss,
            "train/grad_norm": float(module.last_norm),
            "train/lr": learning_rate(module.config.optim, p.step - 1, module.total_steps),
            "train/epoch": p.step / module.data.plan.steps_per_epoch,
            "time/examples_per_second": (p.examples - examples) / seconds,
            "time/tokens_per_second": (p.tokens - tokens) / seconds,
            "time/step_seconds": seconds / max(1, p.step - step),
        }
        unsmoothed = unsmoothed_loss(module)
        if unsmoothed is not None:
            scalars["train/loss_unsmoothed"] = unsmoothed
        self.attempt.write_row(p.step, scalars)
