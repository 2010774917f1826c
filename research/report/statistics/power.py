"""How many seeds or examples it takes to find a difference of the observed size.

A forecast from an observed difference is as uncertain as that difference: it plans the next experiment and says
nothing about this one (Hoenig and Heisey 2001).
"""

from __future__ import annotations

import math

import numpy as np

ALPHA, POWER = 0.05, 0.8


def seeds_needed(scores: np.ndarray, other: np.ndarray, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """Runs of each system with which a two-sided t-test finds the observed difference with this power.

    None where the means are equal or a side has one run; 2 where no side varies.
    """
    if min(len(scores), len(other)) < 2 or scores.mean() == other.mean():
        return None
    spread = math.sqrt((scores.var(ddof=1) + other.var(ddof=1)) / 2)
    from statsmodels.stats.power import TTestIndPower

    return _solved(TTestIndPower(), abs(float(scores.mean() - other.mean())), spread, alpha, power)


def examples_needed(
    difference: float, standard_error: float, examples: int, alpha: float = ALPHA, power: float = POWER
) -> int | None:
    """Test examples with which a two-sided paired test finds a difference of this size with this power.

    `standard_error` is that of the difference over `examples` examples; it falls with their square root. None where
    there is no difference.
    """
    if difference == 0:
        return None
    from statsmodels.stats.power import TTestPower

    return _solved(TTestPower(), abs(difference), standard_error * math.sqrt(examples), alpha, power)


def _solved(test: object, difference: float, spread: float, alpha: float, power: float) -> int:
    """The smallest whole sample size of at least 2 for an effect of `difference / spread`."""
    effect = difference / spread if spread > 0 else math.inf
    if effect > 10:  # two are enough, and the solver would look for fewer
        return 2
    size = test.solve_power(effect_size=effect, alpha=alpha, power=power)  # type: ignore[attr-defined]
    return max(2, math.ceil(float(np.squeeze(size)) - 1e-9))
