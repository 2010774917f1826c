"""Session: what surrounds the steps, such as signals, the progress bar and the count of costs."""

from __future__ import annotations

from typing import Any

import lightning as L

from research.common.console import StepProgress
from research.tracking import cost
from research.training.attempt import Attempt


class Session(L.Callback):
    """Takes over signals after Lightning has set its own handlers, moves the bar and counts the cost."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        if attempt.writes:
            module = attempt.module
            attempt.bar = StepProgress(module.total_steps, module.config.trainer.progress, module.monitored)

    def setup(self, trainer: L.Trainer, module: Any, stage: str) -> None:
        if self.attempt.writes and self.attempt.meter is None:
            self.attempt.meter = cost.Meter(self.attempt.run, trainer.world_size, module.progress.tokens)

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        self._note_signals()
        if self.attempt.bar is not None:
            self.attempt.bar.start(module.step)

    def on_validation_start(self, trainer: L.Trainer, module: Any) -> None:
        self._note_signals()

    def on_test_start(self, trainer: L.Trainer, module: Any) -> None:
        self._note_signals()

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.attempt.bar is not None:
            self.attempt.bar.advance(module.step)

    def _note_signals(self) -> None:
        """From here on a signal is noted, and the step under way ends."""
        self.attempt.stop_flag.install()
        self.attempt.stop_flag.steps_run = True
