"""Checkpointing: the training state is saved every so many steps or minutes, before each evaluation and at a signal."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import lightning as L
from torch import Tensor

from research.models.sharding import copied, is_sharded
from research.training import checkpoint
from research.training.attempt import Attempt
from research.training.kept_checkpoints import rotate
from research.training.module import TaskModule
from research.training.resume import identity_of
from research.training.state import is_finite, load_optimizer, training_tensors


class Checkpointing(L.Callback):
    """Saves the training state, and ends training after the step in which a signal came to any rank."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.identity = identity_of(attempt.module)  # before the model is sharded, which renames its class
        self.saved_time = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Restore the optimiser's moments: Lightning has made it by now."""
        if self.attempt.resumed_from is not None:
            load_optimizer(module, self.attempt.resumed_from)
            self.attempt.resumed_from = None

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.attempt.stopped, due = self._agreed(module.step)
        if (module.ends_segment or self.attempt.stopped or due) and is_finite(module):
            self._save(module)
        if self.attempt.stopped:
            trainer.should_stop = True
            trainer.limit_val_batches = 0  # or Lightning would evaluate once more, off schedule

    def _agreed(self, step: int) -> list[bool]:
        """Do all ranks stop here, and do they save? One rank's signal, and rank zero's clock, are enough."""
        received = self.attempt.stop_flag.signal is not None  # a later one is for the next step
        return self.attempt.of_any_rank(received, self.attempt.writes and self._is_due(step))

    def _is_due(self, step: int) -> bool:
        config = self.attempt.module.config.trainer
        every, minutes = config.checkpoint_every_steps, config.checkpoint_every_minutes
        by_steps = every is not None and step % every == 0
        return by_steps or (minutes is not None and time.monotonic() - self.saved_time > 60 * minutes)

    def _save(self, module: TaskModule) -> None:
        """Copy the training state, which takes all ranks where they share one model out; rank zero writes it behind
        the next steps."""
        attempt, p = self.attempt, module.progress
        if not attempt.writes:
            if is_sharded(module.backbone.model):
                for tensor in training_tensors(module).values():
                    copied(tensor)
            return
        state = {
            "progress": asdict(p),
            "identity": self.identity,
            "ranks": module.trainer.world_size,
            "total_steps": module.total_steps,
            "scaler": module.scaler.state_dict() if module.scaler is not None else None,
        }
        step, needed = p.step, {*p.best_steps.values(), *p.continue_steps.values()}
        keep, folder = module.config.trainer.keep, attempt.run.checkpoints

        def write(tensors: dict[str, Tensor]) -> None:
            attempt.run.lock.refuse_if_taken_over()
            rotate(folder, checkpoint.save(folder, step, tensors, state), keep, needed)

        attempt.writer.submit(write, training_tensors(module))
        if attempt.meter is not None:
            attempt.meter.record(p.tokens)
        self.saved_time = time.monotonic()
