"""What a module or its data need under a plain `lightning.Trainer`, which knows no run folder and no step plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from research.batching.pack import StepItem, default_budget_tokens
from research.batching.plan import Layout
from research.training.bases import Callback

if TYPE_CHECKING:
    import lightning as L

    from research.training.datamodule import TaskData
    from research.training.module import TaskModule

KEY = "research"  # of Lightning's checkpoints


def padded_layout(data: TaskData) -> Layout:
    """For a LightningModule that is no TaskModule: padded micro-batches; an epoch of its trainer is one of the plan."""
    trainer, steps = cast("L.Trainer", data.trainer), data.plan.steps_per_epoch if "train" in data.stores else 0
    first = trainer.current_epoch * steps
    budget = data.config.trainer.tokens_per_microbatch or default_budget_tokens()
    return Layout(trainer.global_rank, trainer.world_size, budget, packed=False, steps=range(first, first + steps))


class PlainTraining(Callback):
    """Logs the loss and the scores of a TaskModule, ends training after its last step, and keeps in Lightning's
    checkpoints what they lack."""

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: StepItem, batch_idx: int
    ) -> None:
        module.log("train/loss", module.global_loss(), prog_bar=True, batch_size=batch.examples)
        if module.step >= module.total_steps:
            trainer.should_stop = True

    def on_validation_epoch_end(self, trainer: L.Trainer, module: Any) -> None:
        self._log_scores(module, "validation")

    def on_test_epoch_end(self, trainer: L.Trainer, module: Any) -> None:
        self._log_scores(module, "test")

    def _log_scores(self, module: TaskModule, name: str) -> None:
        """None where the trainer looked at a part of the split alone, as it does before training."""
        seen = len(module.gathered_predictions()[0])
        if not module.trainer.sanity_checking and seen == len(module.data.splits[module.split].rows):
            _, scores = module.scored()
            shown = {key: value for key, value in scores.items() if "/" not in key}
            module.log_dict({f"{name}/{key}": value for key, value in shown.items()}, sync_dist=True)

    def on_save_checkpoint(self, trainer: L.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = {
            "step": module.step,
            "methods": {name: method.state() for name, method in module.methods.items()},
        }

    def on_load_checkpoint(self, trainer: L.Trainer, module: Any, checkpoint: Mapping[str, Any]) -> None:
        kept = checkpoint[KEY]
        module.progress.step = kept["step"]
        for name, method in module.methods.items():
            method.load_state(kept["methods"][name])
