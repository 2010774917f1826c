"""Sample sizes against the tables of Cohen (1988) and statsmodels."""

import math

import numpy as np
import pytest
from statsmodels.stats.power import TTestIndPower, TTestPower

from research.report.statistics.power import examples_needed, power_of, seeds_needed


def scores_with(mean: float, deviation: float) -> np.ndarray:
    """Two scores of exactly this mean and sample deviation."""
    return mean + deviation * np.array([-1, 1]) / math.sqrt(2)


@pytest.mark.parametrize(("effect", "runs"), [(0.2, 394), (0.5, 64), (0.8, 26)])
def test_seeds_for_small_medium_and_large_effects(effect: float, runs: int) -> None:
    """Cohen (1988, table 2.4.1): 393, 64 and 26 a group; 394 by exact computation."""
    assert seeds_needed(scores_with(0.8 + 0.01 * effect, 0.01), scores_with(0.8, 0.01)) == runs


def test_seeds_pool_the_deviations_of_both() -> None:
    mixed = seeds_needed(scores_with(0.85, math.sqrt(0.5) * 0.1), scores_with(0.8, math.sqrt(1.5) * 0.1))
    assert mixed == 64


def test_examples_are_those_of_the_paired_test() -> None:
    """A difference of 0.01 with standard error 0.008 over 1000 examples: effect 0.01 / (0.008 sqrt 1000)."""
    effect = 0.01 / (0.008 * math.sqrt(1000))
    expected = math.ceil(TTestPower().solve_power(effect_size=effect, alpha=0.05, power=0.8))
    assert examples_needed(0.01, 0.008, 1000) == expected
    assert expected == pytest.approx(1000 * ((1.96 + 0.8416) * 0.8) ** 2, rel=0.01)
    assert examples_needed(-0.01, 0.008, 1000) == expected


def test_no_difference_needs_no_size() -> None:
    assert seeds_needed(scores_with(0.8, 0.01), scores_with(0.8, 0.02)) is None
    assert seeds_needed(np.array([0.9]), scores_with(0.8, 0.02)) is None
    assert examples_needed(0.0, 0.01, 100) is None


def test_a_difference_without_spread_needs_two() -> None:
    assert seeds_needed(np.array([0.9, 0.9]), np.array([0.8, 0.8])) == 2
    assert examples_needed(0.5, 0.0, 100) == 2


@pytest.mark.parametrize("effect", [0.0, 0.1, 0.5, 2.0])
@pytest.mark.parametrize("size", [2, 5, 40])
def test_power_is_that_of_statsmodels(effect: float, size: int) -> None:
    assert power_of(effect, size, 2) == pytest.approx(TTestIndPower().power(effect, size, 0.05), abs=1e-10)
    assert power_of(effect, size, 1) == pytest.approx(TTestPower().power(effect, size, 0.05), abs=1e-10)


@pytest.mark.parametrize("effect", [5.0, 9.2, 20.0, 100.0])
def test_power_of_huge_effects_is_a_number(effect: float) -> None:
    """statsmodels gives NaN here."""
    powers = [power_of(effect, size, 1) for size in (2, 3, 10)]
    assert powers == sorted(powers) and 0.4 < powers[0] <= 1 and powers[-1] == pytest.approx(1)
