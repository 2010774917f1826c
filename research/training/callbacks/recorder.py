"""What happens around the steps: rows of metrics, checkpoints, evaluations, the best model, stopping.

Order at a step: log, save, then evaluate. A checkpoint is always older than the evaluation due at its step, and
resuming from it runs that evaluation first, so a kill at any moment loses nothing and repeats exactly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import lightning as L
import torch
import torch.distributed as dist

from research.cluster.signals import StopFlag
from research.common.console import StepProgress, console
from research.common.errors import Diverged, UserError
from research.metrics import SMALLER_IS_BETTER
from research.models.sharding import copied, is_sharded
from research.tracking import cost, predictions
from research.tracking.run import Run
from research.tracking.wandb import Tracker
from research.training import checkpoint
from research.training.module import TaskModule
from research.training.optimizer import learning_rate
from research.training.state import is_finite, load_optimizer, load_weights, training_tensors

# Told the step and scores of each evaluation but the last, on rank zero; answers why the run shall end there, or None.
OnEvaluation = Callable[[int, dict[str, float]], str | None]


@dataclass
class Progress:
    """Where training stands; stands in every checkpoint."""

    step: int = 0
    best_step: int | None = None
    best_score: float | None = None  # negated where smaller is better
    best_scores: dict[str, float] = field(default_factory=dict)  # all scores of that evaluation
    evaluations_since_best: int = 0
    train_seconds: float = 0.0
    tokens: int = 0
    examples: int = 0


class Recorder(L.Callback):
    """Writes the run folder while Lightning trains."""

    def __init__(
        self,
        run: Run,
        module: TaskModule,
        writes: bool,
        tracker: Tracker | None,
        stop_flag: StopFlag,
        newest: checkpoint.Checkpoint | None,
        on_evaluation: OnEvaluation | None = None,
    ) -> None:
        """Restores weights and progress from the `newest` checkpoint, if there is one; the optimiser's moments follow
        when Lightning has made it."""
        self.run, self.module, self.config = run, module, module.config
        self.writes, self.tracker, self.stop_flag, self.on_evaluation = writes, tracker, stop_flag, on_evaluation
        self.identity = identity_of(module)  # before the model is sharded, which renames its class
        self.progress = Progress()
        self.restored = newest
        if newest is not None:
            refuse_other_identity(newest, self.identity)
            self.progress = Progress(**newest.state["progress"])
            load_weights(module, newest)
            module.step, module.tokens_done = self.progress.step, self.progress.tokens
            module.examples_done = self.progress.examples
        self.writer = checkpoint.Writer()
        self.stopped = self.stopped_early = False
        self.pruned: str | None = None  # why
        self.test_scores: dict[str, float] = {}
        self.saved_time = self.counted_until = time.monotonic()
        self.logged = (self.progress.step, time.monotonic(), self.progress.tokens, self.progress.examples)
        self.bar = StepProgress(module.total_steps, self.config.trainer.progress) if writes else None
        self.meter: cost.Meter | None = None
        if writes:
            run.rewind(self.progress.step)

    @property
    def monitor(self) -> str:
        return self.config.trainer.monitor or self.module.monitor

    @property
    def owes_evaluation(self) -> bool:
        """Was the checkpoint that training goes on from written just before an evaluation?"""
        due = self.restored is not None and self.progress.step in self.module.evaluations
        return due and "validation" in self.module.data.stores

    def setup(self, trainer: L.Trainer, module: Any, stage: str) -> None:
        if self.writes and self.meter is None:
            self.meter = cost.Meter(self.run, trainer.world_size, module.tokens_done)

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        self.stop_flag.install()
        self.stop_flag.steps_run = True
        if self.restored is not None:
            load_optimizer(module, self.restored)
            self.restored = None
        if self.bar is not None:
            self.bar.start(module.step)

    def on_train_epoch_start(self, trainer: L.Trainer, module: Any) -> None:
        self.counted_until = time.monotonic()
        self.logged = (module.step, self.counted_until, module.tokens_done, module.examples_done)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step, last, now = module.step, batch_idx + 1 == trainer.num_training_batches, time.monotonic()
        self.progress.train_seconds += now - self.counted_until
        self.counted_until = now
        if step % self.config.trainer.log_every_steps == 0 or last:
            self._log(trainer, module, batch)
        elif module.device.type == "cpu":  # elsewhere a look at the loss would hold up the steps
            self._refuse_divergence(module.last_loss, step, batch)
        self.stopped, due = self._agreed(self._checkpoint_due(step))
        if (last or self.stopped or due) and is_finite(module):
            self.save(module)
        if self.bar is not None:
            self.bar.advance(step)
        if self.stopped:
            trainer.should_stop = True
            trainer.limit_val_batches = 0  # or Lightning would evaluate once more, off schedule

    def _log(self, trainer: L.Trainer, module: TaskModule, batch: Any) -> None:
        loss = module.last_loss.detach().clone()
        if trainer.world_size > 1:
            dist.all_reduce(loss)
        step, now = module.step, time.monotonic()
        self._refuse_divergence(loss, step, batch)
        before, since, tokens, examples = self.logged
        seconds = max(now - since, 1e-9)
        scalars = {
            "train/loss": float(loss),
            "train/grad_norm": float(module.last_norm),
            "train/lr": learning_rate(self.config.optim, step - 1, module.total_steps),
            "train/epoch": step / module.data.plan.steps_per_epoch,
            "time/examples_per_second": (module.examples_done - examples) / seconds,
            "time/tokens_per_second": (module.tokens_done - tokens) / seconds,
            "time/step_seconds": seconds / max(1, step - before),
        }
        self.logged = (step, now, module.tokens_done, module.examples_done)
        self._write_row(step, scalars)

    def cost(self) -> dict[str, Any]:
        """What all attempts at this run have cost so far."""
        assert self.writes, "rank zero counts"
        attempts = self.meter.record(self.module.tokens_done) if self.meter else cost.read(self.run)
        return cost.total(attempts, self.module.flops_per_token)

    def _write_row(self, step: int, scalars: dict[str, float]) -> None:
        if not self.writes:
            return
        self.run.log(step, scalars)
        if self.meter is not None:
            self.meter.note(self.module.tokens_done)
        if self.bar is not None:
            self.bar.log(step, scalars)
        if self.tracker is not None:
            self.tracker.log(step, scalars)

    def _refuse_divergence(self, loss: torch.Tensor, step: int, batch: Any) -> None:
        """Raise UserError unless this step's loss is finite and, but for fp16 that scales it, so is its gradient."""
        scaled = self.module.scaler is not None
        if math.isfinite(float(loss)) and (scaled or math.isfinite(float(self.module.last_norm))):
            return
        ids = self.module.data.splits["train"].rows["id"]
        rows = [int(row) for part in batch.rows for row in part]
        named = ", ".join(str(ids[row]) for row in rows[:10]) + (", ..." if len(rows) > 10 else "")
        what = f"loss is {float(loss)} and the gradient's norm {float(self.module.last_norm)}"
        raise self._divergence(f"{what} at step {step} (examples {named})")

    def _divergence(self, what: str) -> Diverged:
        self.writer.wait()
        good = checkpoint.newest(self.run.checkpoints)
        return Diverged(
            f"The {what}; {f'the last good checkpoint is {good.path}' if good else 'there is no checkpoint'}. "
            "Lower optim.lr, lengthen the warmup, or set trainer.precision=fp32, in another run_dir."
        )

    def _agreed(self, due: bool) -> tuple[bool, bool]:
        """Do all ranks stop here, and do they save? One rank's signal, and rank zero's clock, are enough."""
        received = self.stop_flag.signal is not None  # one that comes from here on is for the next step
        stops, saves = of_any_rank(self.module, received, due and self.writes)
        return stops, saves

    def _checkpoint_due(self, step: int) -> bool:
        every, minutes = self.config.trainer.checkpoint_every_steps, self.config.trainer.checkpoint_every_minutes
        by_steps = every is not None and step % every == 0
        return by_steps or (minutes is not None and time.monotonic() - self.saved_time > 60 * minutes)

    def save(self, module: TaskModule) -> None:
        """Copy the training state, which takes all ranks where they share one model out; rank zero writes it behind
        the next steps."""
        if not self.writes:
            if is_sharded(module.backbone.model):
                for tensor in training_tensors(module).values():
                    copied(tensor)
            return
        p = self.progress
        p.step, p.tokens, p.examples = module.step, module.tokens_done, module.examples_done
        state = {
            "progress": asdict(p),
            "identity": self.identity,
            "ranks": module.trainer.world_size,
            "scaler": module.scaler.state_dict() if module.scaler is not None else None,
        }
        step, best, keep, folder = p.step, p.best_step, self.config.trainer.keep, self.run.checkpoints

        def write(tensors: dict[str, torch.Tensor]) -> None:
            self.run.refuse_if_taken_over()
            checkpoint.rotate(folder, checkpoint.save(folder, step, tensors, state), keep, best)

        self.writer.submit(write, training_tensors(module))
        if self.meter is not None:
            self.meter.record(p.tokens)
        self.saved_time = time.monotonic()

    def on_validation_start(self, trainer: L.Trainer, module: Any) -> None:
        self.stop_flag.install()
        self.stop_flag.steps_run = True

    def on_test_start(self, trainer: L.Trainer, module: Any) -> None:
        self.on_validation_start(trainer, module)

    def on_validation_batch_start(
        self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        module.leaving = self.stop_flag.signal is not None and not module.sharded  # there, a forward takes all ranks

    def on_test_batch_start(self, *batch: Any) -> None:
        self.on_validation_batch_start(*batch)

    def _stops_evaluation(self, trainer: L.Trainer) -> bool:
        """Do the ranks leave this evaluation? The checkpoint was saved before it: the next attempt begins with it."""
        [self.stopped] = of_any_rank(self.module, self.stop_flag.signal is not None)
        trainer.should_stop |= self.stopped
        return self.stopped

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        if self._stops_evaluation(trainer):
            return
        table, scores = module.scored()
        if not math.isfinite(scores["loss"]):
            raise self._divergence(f"validation loss is {scores['loss']} after step {module.step}")
        self._write_row(module.step, {f"validation/{name}": value for name, value in scores.items()})
        self._note_best(module.step, table, scores)
        if module.step < module.total_steps and self._ends_here(trainer, module.step, scores):
            trainer.should_stop = True

    def _note_best(self, step: int, table: Any, scores: dict[str, float]) -> None:
        """Is this the best evaluation so far? Its predictions are kept, and of the others where that is asked for."""
        if self.monitor not in scores:
            raise UserError(
                f"trainer.monitor={self.monitor} is not a score of task {self.config.task}; "
                f"it reports {', '.join(name for name in scores if '/' not in name)}."
            )
        value = -scores[self.monitor] if self.monitor in SMALLER_IS_BETTER else scores[self.monitor]
        p = self.progress
        if self.writes and self.config.trainer.keep_predictions:
            predictions.write(table, self.run.predictions / f"validation-{step:08d}.parquet")
        is_better = p.best_score is None or value > p.best_score
        if not is_better:
            p.evaluations_since_best += 1
            return
        p.best_score, p.best_step, p.best_scores, p.evaluations_since_best = value, step, scores, 0
        if self.writes:
            predictions.write(table, self.run.predictions / "validation.parquet")

    def _ends_here(self, trainer: L.Trainer, step: int, scores: dict[str, float]) -> bool:
        """Does training end before its last step, out of patience or because whoever is told the scores says so?"""
        patience = self.config.optim.patience
        self.stopped_early = patience is not None and self.progress.evaluations_since_best >= patience
        if self.on_evaluation is not None:
            answer = [self.on_evaluation(step, scores) if self.writes else None]
            if trainer.world_size > 1:  # all ranks end at this step or none does
                dist.broadcast_object_list(answer, device=self.module.device)
            self.pruned = answer[0]
        return self.stopped_early or self.pruned is not None

    def on_test_end(self, trainer: L.Trainer, module: Any) -> None:
        if self._stops_evaluation(trainer):
            return
        table, self.test_scores = module.scored()
        if self.writes:
            self.run.refuse_if_taken_over()
            predictions.write(table, self.run.predictions / f"{module.split}.parquet")


def of_any_rank(module: TaskModule, *wishes: bool) -> list[bool]:
    """Which of these does any rank wish? All ranks ask together."""
    if module.trainer.world_size == 1:
        return list(wishes)
    flags = torch.tensor(wishes, dtype=torch.float32, device=module.device)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return [flag > 0 for flag in flags.tolist()]


def identity_of(module: TaskModule) -> dict[str, Any]:
    """What a checkpoint must share with a run to be resumed by it."""
    return {
        "task": module.config.task,
        "model": type(module.backbone.model).__name__,
        "data": {name: split.fingerprint for name, split in module.data.splits.items()},
        "labels": module.data.labels,
    }


def refuse_other_identity(saved: checkpoint.Checkpoint, identity: dict[str, Any]) -> None:
    """Raise UserError when a checkpoint belongs to another task, model or data."""
    theirs = saved.state["identity"]
    wrong = [f"{key}: {theirs.get(key)} -> {identity[key]}" for key in identity if theirs.get(key) != identity[key]]
    if wrong:
        raise UserError(
            f"The checkpoint {saved.path} cannot be resumed here, it is of another experiment: {'; '.join(wrong)} "
            "(there -> here). Restore the data or model it was made with, or choose another run_dir."
        )


def announce_resume(recorder: Recorder, ranks: int) -> None:
    """Say where a resumed run goes on, and whether its layout changed."""
    saved = recorder.restored
    if saved is None:
        if checkpoint.files(recorder.run.checkpoints):
            console.print(f"No checkpoint in {recorder.run.checkpoints} is whole: starting over.")
        return
    console.print(f"Resuming {recorder.run.path} at step {saved.step}.")
    if saved.state["ranks"] != ranks:
        console.print(f"It ran on {saved.state['ranks']} ranks before and on {ranks} now; the steps stay the same.")
