"""Length and warmup of the runs of a search space: a pruner must not act before all have warmed up."""

from __future__ import annotations

from dataclasses import dataclass

from research.config.schema import Config
from research.sweep.space import Space, corners
from research.sweep.sweepfile import with_values
from research.training.schedule import evaluation_steps, total_steps, warmup_steps

KEYS = (
    "optim.warmup_ratio",
    "optim.warmup_steps",
    "optim.epochs",
    "optim.max_steps",
    "optim.batch_size",
    "data.max_train_examples",
)


@dataclass(frozen=True)
class RunLength:
    """The largest warmup and number of optimiser steps over all points of a space."""

    largest_warmup: int
    most_steps: int


def run_length(space: Space, base: Config, examples: int) -> RunLength:
    """Steps and warmup at the corners of the space, for `examples` to train on."""
    warmups, steps = [], []
    for corner in corners(space, KEYS):
        config = with_values(base, corner, "space")
        seen = config.data.max_train_examples or examples if "data.max_train_examples" in corner else examples
        total = total_steps(config.optim, -(-seen // config.optim.batch_size))
        steps.append(total)
        warmups.append(warmup_steps(config.optim, total))
    return RunLength(max(warmups), max(steps))


def evaluations(base: Config, examples: int) -> list[int]:
    """The steps after which a run of the experiment itself is evaluated."""
    per_epoch = -(-examples // base.optim.batch_size)
    return evaluation_steps(base.trainer, per_epoch, total_steps(base.optim, per_epoch))
