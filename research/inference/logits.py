"""Keep the logits that an evaluation of the training data computes, for a student to follow (`methods.distil`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from research.batching.pack import MicroBatch
from research.common.errors import UserError
from research.config import component
from research.methods import recorded_logits
from research.tracking.run import Run
from research.training.module import TaskModule


def refuse_logits(run: Run, split: str) -> None:
    """Raise UserError for another split than the training data, for a task whose logits cannot be kept, and for logits
    that are there already."""
    if split != "train":
        raise UserError(
            f"--logits are those of the training data, which a student learns from; say --split train, not {split}."
        )
    name = run.config.task.name
    task = component.load("task", name).Module
    if not (task.defines("target_logits") and task.defines("target_examples")):
        raise UserError(
            f"--logits: task '{name}' does not say which logits are of which example; a student learns from tasks such "
            "as classification, ner, qa and choice."
        )
    path = run.path / recorded_logits.FILE
    if path.exists():
        raise UserError(f"{path} is there already; remove it to record the logits again.")


class KeptLogits:
    """The logits of each example that a module decodes from now on."""

    def __init__(self, module: TaskModule) -> None:
        self.module, self.decode = module, module.decode
        self.examples: dict[int, list[Tensor]] = {}
        module.decode = self.keep  # type: ignore[method-assign]

    def keep(self, micro: MicroBatch, outputs: Any) -> dict[int, dict[str, Any]]:
        """Decode a micro-batch, and keep the logits of its examples."""
        logits = [each.float().cpu() for each in self.module.target_logits(micro, outputs)]
        examples = self.module.target_examples(micro)
        for example in np.unique(micro.examples).tolist():
            mine = np.flatnonzero(examples == example)
            self.examples[example] = [each[mine] for each in logits]
        return self.decode(micro, outputs)

    def write(self, run: Run) -> None:
        data, split = self.module.data, self.module.data.tested
        facts = recorded_logits.facts_of(data, split, self.module.targets_are_tokens)
        recorded_logits.write(run.path, facts, self.examples)
