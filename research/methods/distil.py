"""Distillation: the student's distribution of each target follows that of a teacher, another finished run.

Hinton, Vinyals and Dean 2015, Distilling the Knowledge in a Neural Network. The loss of a target is

    (1 - alpha) CE(y, p) + alpha T^2 KL(q_T || p_T),  p_T = softmax(z / T), q_T = softmax(v / T)

with the student's logits z and the teacher's v at the temperature T, which the factor T^2 keeps from changing the size
of the gradient. The teacher is not in memory: its logits of the training data are read from its run folder, where
`research evaluate RUN --split train --logits` writes them once. Where a target has several distributions, such as the
start and the end of a span, the divergence is the mean of theirs.

Shapes: M targets, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from research.common.errors import UserError
from research.config.key import above, inside, key
from research.methods.divergence import COMPARES
from research.methods.hooks import Loss, MethodHooks, Trained
from research.methods.recorded_logits import RecordedLogits

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch


@dataclass
class Keys:
    teacher: str | None = key(None, "run folder whose recorded logits of the training data are followed", path=True)
    temperature: float = key(2.0, "divides the logits of both; 2 to 4", above(0))
    alpha: float = key(0.5, "weight of the teacher; the labels have the rest", inside("[0, 1]"))


class Method(MethodHooks):
    needs_target_logits = True
    needs_target_examples = True
    claims = (COMPARES,)
    reads_training_texts = True

    @property
    def is_off(self) -> bool:
        return bool(self.keys.alpha == 0)

    def on_model(self, module: Trained) -> None:
        """Raises UserError for a teacher without recorded logits, or of other labels or data."""
        if self.keys.teacher is None:
            raise UserError("methods.distil needs a teacher: set methods.distil.teacher to a finished run's folder.")
        self.teacher = RecordedLogits.read(self.keys.teacher)
        self.teacher.refuse_other(module)

    def loss(self, module: Trained, micro: MicroBatch, plain: Loss) -> tuple[Tensor, Any]:
        loss, outputs = plain(micro)
        students = module.target_logits(micro, outputs)
        teachers = self.teacher.of(micro.examples)
        if len(students[0]) != len(teachers[0]):
            raise UserError(
                f"methods.distil cannot follow {self.keys.teacher}: it has {len(teachers[0])} targets where there are "
                f"{len(students[0])} here, since its windows are cut otherwise; take its tokenizer and data.max_length."
            )
        T, alpha = self.keys.temperature, self.keys.alpha
        found = [divergence(z / T, v.to(z) / T) for z, v in zip(students, teachers, strict=True)]
        return (1 - alpha) * loss + alpha * T**2 * torch.stack(found).mean(), outputs

    def state(self) -> dict[str, Tensor]:
        """The digest of the logits: a resumed run reads the same ones."""
        return {"logits": torch.tensor(list(bytes.fromhex(self.teacher.digest)), dtype=torch.uint8)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        if bytes(state["logits"].tolist()).hex() != self.teacher.digest:
            raise UserError(f"methods.distil: {self.teacher.path} has changed since this run began; restore it.")


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student), summed over targets; logits (M, C), minus infinity where a target has no such class."""
    C = max(student.shape[1], teacher.shape[1])
    student, teacher = (torch.nn.functional.pad(x, (0, C - x.shape[1]), value=-torch.inf) for x in (student, teacher))
    log_p, log_q = torch.log_softmax(student, -1), torch.log_softmax(teacher, -1)
    there = teacher > -torch.inf
    return (log_q.exp() * (log_q - log_p).masked_fill(~there, 0.0)).masked_fill(~there, 0.0).sum()
