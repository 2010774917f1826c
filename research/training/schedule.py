"""The schedule of a run, functions of the step alone: its length, warmup, evaluations and learning rate."""

from __future__ import annotations

import math
from itertools import count, takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from research.config.schema import OptimConfig, TrainerConfig

DECAY_RATIO = 0.1  # of schedule wsd, where optim.decay_ratio does not say another


def total_steps(optim: OptimConfig, steps_per_epoch: int) -> int:
    """Optimiser steps of the whole run."""
    return optim.max_steps if optim.max_steps is not None else max(1, math.ceil(optim.epochs * steps_per_epoch))


def warmup_steps(optim: OptimConfig, total: int) -> int:
    """Steps over which the learning rate rises."""
    return int(optim.warmup_ratio * total) if optim.warmup_steps is None else optim.warmup_steps


def decay_steps(optim: OptimConfig, total: int) -> int:
    """Steps at the end over which the learning rate of schedule wsd falls to 0."""
    return round((DECAY_RATIO if optim.decay_ratio is None else optim.decay_ratio) * total)


def steady_steps(optim: OptimConfig, total: int) -> int:
    """How many steps of a run are, to the bit, the first of a longer one; 0 where each depends on the length.

    `research.config.length` says which experiments may be continued.
    """
    if optim.schedule in ("linear", "cosine") or (optim.warmup_steps is None and optim.warmup_ratio > 0):
        return 0
    if optim.schedule == "constant":
        return total
    return max(total - decay_steps(optim, total), min(warmup_steps(optim, total), total))


def evaluation_steps(trainer: TrainerConfig, steps_per_epoch: int, total: int) -> list[int]:
    """The steps after which a run is evaluated: every so many or each epoch, perhaps ever fewer, and its end."""
    every, growth = trainer.evaluate_every_steps or steps_per_epoch, trainer.evaluation_growth
    if growth == 1:
        return [*range(every, total, every), total]
    return [*takewhile(lambda step: step < total, (every * growth**k for k in count())), total]


def learning_rate(optim: OptimConfig, step: int, total: int) -> float:
    """The rate of optimiser step `step` (from 0): linear warmup, then the schedule to zero at `total`.

    As `transformers.get_scheduler` defines linear, cosine, constant_with_warmup and, with a linear decay,
    warmup_stable_decay (Hu et al. 2024, MiniCPM).
    """
    warmup = warmup_steps(optim, total)
    if step < warmup:
        return optim.lr * step / warmup
    progress = (step - warmup) / max(1, total - warmup)
    if optim.schedule == "linear":
        return optim.lr * max(0.0, 1.0 - progress)
    if optim.schedule == "cosine":
        return optim.lr * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
    if optim.schedule == "wsd":
        decay = min(decay_steps(optim, total), total - warmup)
        return optim.lr * max(0.0, min(1.0, (total - step) / max(1, decay)))
    return optim.lr
