"""How many seeds or examples it takes to find a difference of the observed size.

A forecast from an observed difference is as uncertain as that difference: it plans the next experiment and says
nothing about this one (Hoenig and Heisey 2001).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from research.report.statistics.intervals import NOTHING

ALPHA, POWER = 0.05, 0.8


def seeds_needed(scores: np.ndarray, other: np.ndarray, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """Runs of each system with which a two-sided t-test finds the observed difference with this power.

    None where the means are equal or a side has one run; 2 where no side varies.
    """
    if min(len(scores), len(other)) < 2 or abs(scores.mean() - other.mean()) < NOTHING:
        return None
    spread = math.sqrt((scores.var(ddof=1) + other.var(ddof=1)) / 2)
    return _smallest(abs(float(scores.mean() - other.mean())), spread, 2, alpha, power)


def examples_needed(
    difference: float, standard_error: float, examples: int, alpha: float = ALPHA, power: float = POWER
) -> int | None:
    """Test examples with which a two-sided paired test finds a difference of this size with this power.

    `standard_error` is that of the difference over `examples` examples; it falls with their square root. None where
    there is no difference.
    """
    if abs(difference) < NOTHING:
        return None
    return _smallest(abs(difference), standard_error * math.sqrt(examples), 1, alpha, power)


def power_of(effect: float, size: int, groups: int, alpha: float = ALPHA) -> float:
    """Power of the two-sided t-test of one sample (or of pairs), or of two groups of `size` each (Cohen 1988)."""
    freedom, shift = groups * (size - 1), effect * math.sqrt(size / groups)
    limit = stats.t.ppf(1 - alpha / 2, freedom)
    below = stats.nct.cdf(-limit, freedom, shift)  # not a number where the shift is huge, and nothing then
    return float(stats.nct.sf(limit, freedom, shift) + np.nan_to_num(below))


def _smallest(difference: float, spread: float, groups: int, alpha: float, power: float) -> int:
    """The smallest integer sample size of at least 2 that finds an effect of `difference / spread` with this power."""
    if difference > 1000 * spread:
        return 2

    def finds(size: int) -> bool:
        return power_of(difference / spread, size, groups, alpha) >= power

    largest = 2
    while not finds(largest):
        largest *= 2
    smallest = largest // 2  # too few, unless two are enough
    while largest - smallest > 1:
        middle = (smallest + largest) // 2
        smallest, largest = (smallest, middle) if finds(middle) else (middle, largest)
    return max(2, largest)
