"""Evaluation: scores and predictions of validation and test data; the best evaluation is remembered."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import pyarrow as pa

from research.common.errors import UserError
from research.data.source import file_sha256
from research.tracking import predictions
from research.training.attempt import Attempt
from research.training.module import TaskModule
from research.training.progress import Progress


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
        if self._is_left(trainer):
            return
        table, scores = module.scored()
        if self.attempt.restores_predictions:
            self._write_best(module, table)
            return
        if not math.isfinite(scores["loss"]):
            raise self.attempt.diverged(f"validation loss is {scores['loss']} after step {module.step}")
        self.attempt.scores = scores
        self.attempt.write_row(module.step, {f"validation/{name}": value for name, value in scores.items()})
        self._note_best(module, table, scores)

    def on_test_end(self, trainer: L.Trainer, module: Any) -> None:
        if self._is_left(trainer):
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
            predictions.write(table, folder / f"validation-{p.step:08d}.parquet")
        is_cost = module.data.scorer.score_named(monitor).smaller_is_better
        value = -scores[monitor] if is_cost else scores[monitor]
        if not is_better(value, scores["loss"], p):
            p.evaluations_since_best += 1
            return
        p.best_score, p.best_step, p.best_scores, p.evaluations_since_best = value, p.step, scores, 0
        self._write_best(module, table)

    def _write_best(self, module: TaskModule, table: pa.Table) -> None:
        if self.attempt.writes:
            path = self.attempt.run.best_predictions
            predictions.write(table, path)
            module.progress.best_predictions = file_sha256(path)


def is_better(value: float, loss: float, progress: Progress) -> bool:
    """Is an evaluation better than the best so far? Of equal values the one with the lower loss is.

    `value`: of the monitored score, negated where less is better.
    """
    if progress.best_score is None or value != progress.best_score:
        return progress.best_score is None or value > progress.best_score
    return loss < progress.best_scores.get("loss", math.inf)
