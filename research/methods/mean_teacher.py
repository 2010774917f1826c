"""Mean teacher: the answers must agree with those of the moving average of the weights.

Tarvainen and Valpola 2017, Mean teachers are better role models. The loss of a step is

    mean_labelled CE(y, p(x))  +  weight(t) mean_all |p(x) - p_teacher(x)|^2 / C

over the labelled texts, and over all texts of the step, those of `data.unlabelled` too. The teacher's weights are the
moving average of `methods.ema`, with dropout masks of its own; no gradient flows through it, and it is what is scored.
Where `augment` changes texts, the teacher reads them as they are written. The weight rises over the first `rampup` of
training as exp(-5 (1 - t)^2), t from 0 to 1. (The paper's weight is 100 on images.)

Shapes: E texts, C classes.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from research.config.key import at_least, inside, key
from research.methods import ema
from research.methods.divergence import COMPARES
from research.methods.hooks import Loss, MethodHooks, Trained
from research.methods.unlabelled import as_written, logits_of, refuse_other_tasks, sizes_of_step

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch


@dataclass
class Keys:
    weight: float = key(10.0, "factor of the consistency loss, once it has risen", at_least(0))
    rampup: float = key(0.4, "share of training over which the factor rises", inside("[0, 1]"))
    decay: float = key(0.99, "of the teacher: weight of the average so far at each step", inside("[0, 1)"))


class Method(MethodHooks):
    passes = 1.3  # the teacher's is a forward pass alone
    needs_dense_embedding = True
    needs_unsharded_weights = True
    reads_unlabelled = True
    acts_by_length = True  # the factor rises over a share of it
    claims = ("chooses the weights that are scored", COMPARES)

    @property
    def is_off(self) -> bool:
        return bool(self.keys.weight == 0)

    def on_model(self, module: Trained) -> None:
        refuse_other_tasks("mean_teacher", module)
        self.teacher = ema.Method(self.keys)
        self.teacher.on_model(module)

    def loss(self, module: Trained, micro: MicroBatch, plain: Loss) -> tuple[Tensor, Any]:
        with self.teacher.at_evaluation(module):
            teacher = logits_of(module, as_written(module, micro))
        loss, outputs = plain(micro)
        [student] = module.target_logits(micro, outputs)
        sizes = sizes_of_step(module)
        each = sizes.targets / (sizes.labelled + sizes.unlabelled)  # the step's loss is divided by its targets
        factor = self.keys.weight * risen(module.step / module.total_steps, self.keys.rampup)
        return loss + factor * each * squared_distance(student, teacher), outputs

    def after_step(self, module: Trained) -> None:
        self.teacher.after_step(module)

    def at_evaluation(self, module: Trained) -> AbstractContextManager[None]:
        return self.teacher.at_evaluation(module)

    def state(self) -> dict[str, Tensor]:
        return self.teacher.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.teacher.load_state(state)


def risen(done: float, rampup: float) -> float:
    """The factor's share of its full size, when this share of training is done."""
    return math.exp(-5 * (1 - done / rampup) ** 2) if done < rampup else 1.0


def squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Of their distributions: the mean over classes, summed over texts; logits (E, C)."""
    return (student.softmax(-1) - teacher.softmax(-1)).square().mean(-1).sum()
