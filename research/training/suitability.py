"""Checks that the adapter, methods and augmentation of a module suit its task and model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from research.common.errors import UserError
from research.methods.hooks import refuse_conflicts
from research.training.epochs import operations_of

if TYPE_CHECKING:
    from research.training.module import TaskModule


def refuse_unsuitable(module: TaskModule) -> None:
    """Raise UserError where a method does not suit the task or the model, and for weights outside of the model."""
    config, data = module.config, module.data
    if module.sharded and not module.adapter.shards:
        raise UserError(f"adapter={config.adapter.name} does not go with trainer.strategy=fsdp; use ddp.")
    if outside := [name for name, _ in module.named_parameters() if not name.startswith("backbone.model.")]:
        raise UserError(
            f"The module of task '{config.task.name}' has weights of its own ({', '.join(outside[:3])}), "
            "which no checkpoint would hold; put them into a model class, which `auto_class` names."
        )
    refuse_conflicts(module.methods, config.trainer.strategy, config.task.name if module.defines_step_loss else None)
    if config.augment and data.epochs is None and operations_of(config.augment):
        raise UserError(f"augment does not act on task '{config.task.name}'; remove it.")
    for name, method in module.methods.items():
        if method.reads_training_texts and data.epochs is not None:
            raise UserError(
                f"methods.{name} does not go with augment: it reads training texts as they are in their files."
            )
