"""Critical-difference diagrams beside the worked example of Demšar (2006), table 6 and section 3.2."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from research.report.figures.ranks import average_ranks, cliques, critical_difference, draw_ranks, friedman_p
from research.report.figures.style import applied

# AUC of C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on 14 data sets.
AUC = np.array([
    [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970],
])  # fmt: skip


def test_average_ranks_and_friedman() -> None:
    assert average_ranks(AUC) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert stats.friedmanchisquare(*AUC.T).statistic == pytest.approx(9.62, abs=0.7)  # 9.28 without correcting ties
    assert friedman_p(AUC) < 0.05


@pytest.mark.parametrize(("alpha", "difference"), [(0.05, 1.25), (0.10, 1.12)])
def test_critical_difference(alpha: Any, difference: Any) -> None:
    assert critical_difference(4, 14, alpha) == pytest.approx(difference, abs=0.01)


def test_critical_values_are_those_of_the_table() -> None:
    """Demšar 2006, table 5 a: q at 5 % for 2 to 10 systems."""
    published = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    for systems, value in enumerate(published, start=2):
        quantile = critical_difference(systems, 6) / np.sqrt(systems * (systems + 1) / 36)
        assert quantile == pytest.approx(value, abs=1.5e-3)


def test_equal_systems_do_not_divide_by_zero() -> None:
    assert friedman_p(np.full((4, 3), 0.5)) == 1.0


@pytest.mark.parametrize(
    ("ranks", "difference", "bars"),
    [
        ([1.0, 2.0, 3.0, 4.0], 1.5, [(1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]),
        ([1.0, 1.2, 1.4, 4.0], 1.0, [(1.0, 1.4)]),
        ([1.0, 3.0], 1.0, []),
        ([2.0, 2.0], 1.0, []),
    ],
)
def test_bars_join_what_does_not_differ(ranks: Any, difference: Any, bars: Any) -> None:
    assert cliques(np.array(ranks), difference) == bars


def test_every_name_and_rank_is_written() -> None:
    with applied():
        figure = draw_ranks(["alpha", "beta", "gamma"], np.array([1.2, 2.0, 2.8]), 1.1)
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {"alpha (1.20)", "beta (2.00)", "gamma (2.80)", "critical difference 1.10"} <= texts
