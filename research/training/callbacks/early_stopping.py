"""Stopping before the last step: out of patience, or because a caller that receives the scores asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch.distributed as dist

from research.training.attempt import Attempt

# Told the step and scores of each evaluation but the last, on rank zero; answers why the run shall end there, or None.
OnEvaluation = Callable[[int, dict[str, float]], str | None]


class Stopping(L.Callback):
    """Ends training after an evaluation; all ranks end at the same one."""

    def __init__(self, attempt: Attempt, on_evaluation: OnEvaluation | None = None) -> None:
        self.attempt, self.on_evaluation = attempt, on_evaluation

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        attempt = self.attempt
        if attempt.stopped or attempt.ends_part or module.step >= module.total_steps:
            return
        patience = module.config.optim.patience
        attempt.stopped_early = patience is not None and module.progress.evaluations_since_best >= patience
        if self.on_evaluation is not None:
            answer = [self.on_evaluation(module.step, attempt.scores) if attempt.writes else None]
            if trainer.world_size > 1:
                dist.broadcast_object_list(answer, device=module.device)
            attempt.pruned = answer[0]
        if attempt.ended:
            trainer.should_stop = True
