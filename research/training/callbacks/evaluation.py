"""Evaluation: scores and predictions of validation and test data; the best evaluation is remembered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning as L
import pyarrow as pa

from research.common.errors import UserError
from research.data.source import file_sha256
from research.tracking import predictions
from research.training.attempt import Attempt
from research.training.module import TaskModule
from research.training.schedule import evaluation_steps, steady_steps


class Evaluation(L.Callback):
    """Scores an evaluation when it ends, unless a signal came in it: the next attempt begins with it."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt

    def on_validation_batch_start(
        self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        stopped = self.attempt.stop_flag.signal is not None
        module.leaving = stopped and not module.sharded  # there, a forward takes all ranks

    def on_test_batch_start(self, *batch: Any) -> None:
        self.on_validation_batch_start(*batch)

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        if self._is_left(trainer) or self.attempt.ends_part:
            return
        table, scores = module.scored()
        if self.attempt.scores_best:
            module.progress.best_scores = scores
            self._write_best(module, table)
            return
        if not math.isfinite(scores["loss"]):
            raise self.attempt.diverged(f"validation loss is {scores['loss']} after step {module.step}")
        self.attempt.scores = scores
        self.attempt.write_row(module.step, {f"{module.split}/{name}": value for name, value in scores.items()})
        self._note_best(module, table, scores)
        note_best_of_parts(module, scores)
        if longer_run_has(module):
            module.progress.continue_steps = module.progress.best_steps

    def on_test_end(self, trainer: L.Trainer, module: Any) -> None:
        if self._is_left(trainer) or self.attempt.ends_part:
            return
        table, self.attempt.test_scores = module.scored()
        if self.attempt.writes:
            self.attempt.run.lock.refuse_if_taken_over()
            predictions.write(table, self.attempt.run.predictions / f"{module.split}.parquet")

    def _is_left(self, trainer: L.Trainer) -> bool:
        """Do the ranks leave this evaluation? The checkpoint was saved before it."""
        [self.attempt.stopped] = self.attempt.of_any_rank(self.attempt.stop_flag.signal is not None)
        trainer.should_stop |= self.attempt.stopped
        return self.attempt.stopped

    def _note_best(self, module: TaskModule, table: pa.Table, scores: dict[str, float]) -> None:
        """Is this the best evaluation so far? Its predictions are kept, and of the others where that is asked for."""
        config, p, folder = module.config, module.progress, self.attempt.run.predictions
        monitor = module.monitored
        if monitor not in scores:
            raise UserError(
                f"trainer.monitor={monitor} is not a score of task {config.task.name}; "
                f"it reports {', '.join(name for name in scores if '/' not in name)}."
            )
        if self.attempt.writes and config.trainer.keep_predictions:
            predictions.write(table, folder / f"{module.split}-{p.step:08d}.parquet")
        value = more_is_better(module, monitor, scores)
        if not is_better(value, scores["loss"], p.best_score, p.best_scores.get("loss", math.inf)):
            p.evaluations_since_best += 1
            return
        p.best_score, p.best_step, p.best_scores, p.evaluations_since_best = value, p.step, scores, 0
        if module.split == "validation":
            self._write_best(module, table)

    def _write_best(self, module: TaskModule, table: pa.Table) -> None:
        if self.attempt.writes:
            path = self.attempt.run.best_predictions
            predictions.write(table, path)
            module.progress.best_predictions = file_sha256(path)


def note_best_of_parts(module: TaskModule, scores: Mapping[str, float]) -> None:
    """Is this the best evaluation so far of a part of the run?"""
    for part, monitor in module.monitored_parts.items():
        value, best = more_is_better(module, monitor, scores), module.progress.best_of_parts.get(part)
        if best is None or is_better(value, scores["loss"], best["score"], best["loss"]):
            module.progress.best_of_parts[part] = {"step": module.step, "score": value, "loss": scores["loss"]}


def longer_run_has(module: TaskModule) -> bool:
    """Would a longer run have done the same steps so far, and evaluated after them?"""
    longer = evaluation_steps(module.config.trainer, module.data.plan.steps_per_epoch, module.step + 1)
    return module.step in longer and module.step <= steady_steps(module.config.optim, module.total_steps)


def more_is_better(module: TaskModule, name: str, scores: Mapping[str, float]) -> float:
    """A score, negated where less is better."""
    return -scores[name] if module.data.scorer.score_named(name).smaller_is_better else scores[name]


def is_better(value: float, loss: float, best: float | None, best_loss: float) -> bool:
    """Is an evaluation better than the best so far? Of equal values the one with the lower loss is."""
    return best is None or value > best or (value == best and loss < best_loss)
