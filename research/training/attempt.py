"""One attempt at a run: what its callbacks share, and how it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from research.cluster.signals import StopFlag
from research.common.console import StepProgress
from research.common.errors import Diverged
from research.tracking import cost
from research.tracking.run import Run
from research.tracking.wandb import Tracker
from research.training import checkpoint
from research.training.module import TaskModule


@dataclass
class Attempt:
    """What the callbacks of one attempt share: the run folder, the tracker, and how the attempt ends."""

    run: Run
    module: TaskModule
    writes: bool  # rank zero writes the run folder
    stop_flag: StopFlag
    tracker: Tracker | None = None
    resumed_from: checkpoint.Checkpoint | None = None  # until the optimiser is restored
    writer: checkpoint.Writer = field(default_factory=checkpoint.Writer)
    meter: cost.Meter | None = None
    bar: StepProgress | None = None
    scores: dict[str, float] = field(default_factory=dict)  # of the last evaluation
    test_scores: dict[str, float] = field(default_factory=dict)
    stopped: bool = False  # by a signal to any rank
    stopped_early: bool = False  # out of patience
    pruned: str | None = None  # why
    scores_best: bool = False  # evaluates the best weights again, on all validation data
    sample_scores: dict[str, float] = field(default_factory=dict)  # of the best step, where a sample chose it
    ends_part: bool = False  # evaluates the best weights of a part of the run
    returned_to: int | None = None  # the step whose weights the module has now, if not of the last one

    @property
    def ended(self) -> bool:
        """Does training end before its last step?"""
        return self.stopped or self.stopped_early or self.pruned is not None

    @property
    def owes_evaluation(self) -> bool:
        """Was the checkpoint that training resumes from written just before an evaluation, or is nothing trained?"""
        due = self.resumed_from is not None and self.module.step in self.module.evaluations
        untrained = self.module.total_steps == 0 and self.module.progress.best_step is None
        return (due or untrained) and "validation" in self.module.data.stores

    @property
    def weights_of(self) -> int:
        """The step whose weights the module has."""
        return self.module.step if self.returned_to is None else self.returned_to

    def write_row(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write a row of metrics to the run folder, the console and the tracker."""
        if not self.writes:
            return
        self.run.log(step, dict(scalars))
        if self.meter is not None:
            self.meter.note(self.module.progress.tokens)
        if self.bar is not None:
            self.bar.log(step, scalars)
        if self.tracker is not None:
            self.tracker.log(step, dict(scalars))

    def cost(self) -> dict[str, Any]:
        """What all attempts at this run have cost so far; rank zero counts."""
        attempts = self.meter.record(self.module.progress.tokens) if self.meter else cost.read(self.run)
        return cost.total(attempts, self.module.flops_per_token)

    def of_any_rank(self, *wishes: bool) -> list[bool]:
        """Which of these does any rank wish? All ranks ask together."""
        if self.module.trainer.world_size == 1:
            return list(wishes)
        flags = torch.tensor(wishes, dtype=torch.float32, device=self.module.device)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return [flag > 0 for flag in flags.tolist()]

    def diverged(self, what: str) -> Diverged:
        """The error that ends a run whose loss is not finite; it names the last checkpoint before that."""
        self.writer.wait()
        good = checkpoint.newest(self.run.checkpoints)
        return Diverged(
            f"The {what}; {f'the last good checkpoint is {good.path}' if good else 'there is no checkpoint'}. "
            "Lower optim.lr, lengthen the warmup, or set trainer.precision=fp32, in another run_dir."
        )
