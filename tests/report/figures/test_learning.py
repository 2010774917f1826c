"""Learning curves: which steps count, means and bands."""

from typing import Any

import pytest

from research.report.figures.learning import curve

KEY = "validation/f1"


def history(*points: Any) -> list[dict[str, float]]:
    return [{"step": step, KEY: value} for step, value in points]


def test_a_curve_is_over_the_steps_that_all_runs_have() -> None:
    found = curve([history((10, 0.1), (20, 0.3), (30, 0.4)), history((10, 0.3), (20, 0.5))], KEY)
    assert found.steps.tolist() == [10, 20]
    assert found.mean.tolist() == pytest.approx([0.2, 0.4])
    assert found.deviation.tolist() == pytest.approx([0.02**0.5, 0.02**0.5])


def test_a_single_run_has_no_band() -> None:
    assert curve([history((10, 0.1), (20, 0.3))], KEY).deviation is None


def test_of_a_step_logged_twice_the_last_counts_and_other_rows_none() -> None:
    rows = [{"step": 10, "train/loss": 1.0}, *history((10, 0.1), (10, 0.2))]
    assert curve([rows], KEY).values.tolist() == [[0.2]]


def test_runs_without_the_scalar_have_an_empty_curve() -> None:
    assert len(curve([[{"step": 1, "train/loss": 1.0}]], KEY).steps) == 0
    assert len(curve([], KEY).steps) == 0
