"""Samplers and pruners of Optuna, as the sweep file asks for them.

Random, quasi-random and grid search draw from a sampler of our own: the point of trial n is a function of the sweep's
seed and n alone, whoever draws it and however often a worker died before. Optuna's own keep their place in a generator
of the process (random) or count draws (QMC), so that a killed worker would shift every later trial.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
    WilcoxonPruner,
)
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, TPESampler

from research.sweep.space import at, shuffled_grid
from research.sweep.sweepfile import PrunerConfig, SweepConfig

FIXED_ORDER = ("random", "qmc", "grid")


class FixedOrder(BaseSampler):
    """Draws each parameter by `draw(trial number, key, distribution)`, a pure function."""

    def __init__(self, draw: Callable[[int, str, BaseDistribution], Any]) -> None:
        self.draw = draw

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: BaseDistribution) -> Any:
        return self.draw(trial.number, param_name, param_distribution)


def make_sampler(sweep: SweepConfig, number: int) -> BaseSampler:
    """The sampler that draws the parameters of trial `number`: its seed is the trial's, not the worker's."""
    seed = int(np.random.SeedSequence([sweep.sampler.seed, number]).generate_state(1)[0])
    startup, conditional = sweep.sampler.startup_trials, any(p.when for p in sweep.space.values())
    match sweep.sampler.name:
        case "random":
            return FixedOrder(lambda n, key, d: at(d, random_unit(sweep.sampler.seed, n, key)))
        case "qmc":
            keys = sorted(sweep.space)
            return FixedOrder(lambda n, key, d: at(d, _sobol(sweep.sampler.seed, n, len(keys))[keys.index(key)]))
        case "grid":
            points = _grid(sweep)
            return FixedOrder(lambda n, key, d: points[n % len(points)][key])
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=startup)
        case "cma-es":
            return CmaEsSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
    with _no_warnings():  # that `group` is experimental
        return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, group=conditional)


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def random_unit(seed: int, number: int, key: str) -> float:
    """Uniform in [0, 1) for parameter `key` of trial `number`."""
    return float(np.random.default_rng([seed, number, zlib.crc32(key.encode())]).random())


@cache
def _sobol(seed: int, number: int, dimensions: int) -> Sequence[float]:
    """Point `number` of a scrambled Sobol sequence."""
    from scipy.stats import qmc

    engine = qmc.Sobol(dimensions, scramble=True, rng=seed)
    if number:
        engine.fast_forward(number)
    with _no_warnings():  # of a number of points that is no power of two
        return [float(u) for u in engine.random(1)[0]]


def _grid(sweep: SweepConfig) -> list[dict[str, Any]]:
    return shuffled_grid(sweep.space, sweep.sampler.seed)


def trials_asked(sweep: SweepConfig) -> int | None:
    """The number of trials the search may have; None: limited by time alone."""
    grid_size = len(_grid(sweep)) if sweep.sampler.name == "grid" else None
    return min((n for n in (sweep.budget.trials, grid_size) if n is not None), default=None)


def make_pruner(pruner: PrunerConfig, warmup_steps: int, total_steps: int) -> BasePruner:
    """The pruner of a search whose trials warm up for at most `warmup_steps` and run for at most `total_steps`."""
    first = first_verdict(pruner, warmup_steps)
    match pruner.name:
        case "median":
            return MedianPruner(n_startup_trials=pruner.startup_trials, n_warmup_steps=first)
        case "asha":
            return SuccessiveHalvingPruner(min_resource=first, reduction_factor=pruner.reduction_factor)
        case "hyperband":
            return HyperbandPruner(
                min_resource=first, max_resource=max(first, total_steps), reduction_factor=pruner.reduction_factor
            )
        case "wilcoxon":
            with _no_warnings():  # that it is experimental
                return WilcoxonPruner(p_threshold=pruner.p_threshold)
    return NopPruner()


def first_verdict(pruner: PrunerConfig, warmup_steps: int) -> int:
    """The first step at which a trial may be pruned: never before the largest warmup of the space has ended."""
    return max(1, warmup_steps, pruner.min_steps or 0)


def enqueued(sweep: SweepConfig, number: int) -> Mapping[str, Any]:
    """The parameters that the sweep file fixes for trial `number`."""
    return sweep.enqueue[number] if number < len(sweep.enqueue) else {}
