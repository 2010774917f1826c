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
    _refuse_without_logits(module)
    for name, method in module.methods.items():
        if method.reads_training_texts and data.epochs is not None:
            raise UserError(
                f"methods.{name} does not go with augment: it reads training texts as they are in their files."
            )


def _refuse_without_logits(module: TaskModule) -> None:
    """Raise UserError for a method that compares logits, or reads kept ones, of a task that does not give them."""
    task = module.config.task.name
    for name, method in module.methods.items():
        if method.needs_target_logits and not module.defines("target_logits"):
            raise UserError(
                f"methods.{name} does not go with task '{task}': it compares distributions over classes or words, and "
                "the task has none (no target_logits). It goes with tasks such as classification, ner, qa, choice and "
                f"translation; task '{task}' goes with methods such as fgm, freelb, l2_sp and ema."
            )
        if method.needs_target_examples and not module.defines("target_examples"):
            raise UserError(
                f"methods.{name} does not go with task '{task}': it reads logits that were kept by example, and the "
                "task does not say whose its logits are (no target_examples). It goes with tasks such as "
                f"classification, ner, qa and choice; task '{task}' goes with r_drop, r3f and smart."
            )
