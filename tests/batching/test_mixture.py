"""The plan over several tasks: counts of an epoch, endless orders, and a pure function of (seed, step)."""

from __future__ import annotations

import numpy as np
import pytest

from research.batching.mixture import MixedPlan


def plan(alpha: float = 1.0, end: float | None = None, epochs: int = 1, sizes: tuple[int, ...] = (90, 10)) -> MixedPlan:
    starts = np.cumsum([0, *sizes])
    return MixedPlan(
        [start + np.arange(size) for start, size in zip(starts, sizes, strict=False)], 8, 3, alpha, end, epochs
    )


def test_by_size_an_epoch_sees_every_example_once() -> None:
    by_size = plan()
    assert by_size.steps_per_epoch == 13
    for epoch in range(2):
        steps = range(13 * epoch, 13 * (epoch + 1))
        assert sorted(np.concatenate([by_size.global_batch(step) for step in steps])) == list(range(100))
    assert by_size.global_batch(0).tolist() != by_size.global_batch(13).tolist()


@pytest.mark.parametrize(("alpha", "expected"), [(1.0, [90, 10]), (0.5, [75, 25]), (0.0, [50, 50])])
def test_counts_follow_the_power_of_the_size(alpha: float, expected: list[int]) -> None:
    """By hand: the roots of 90 and 10 are as 3 to 1."""
    assert plan(alpha).counts(0).tolist() == expected


def test_alpha_changes_linearly_over_the_epochs() -> None:
    annealed = plan(1.0, 0.0, epochs=3)
    assert [annealed.counts(epoch).tolist() for epoch in range(4)] == [[90, 10], [75, 25], [50, 50], [50, 50]]


def test_a_small_task_goes_round_and_no_step_has_an_example_twice() -> None:
    uniform = plan(0.0)
    batches = [uniform.global_batch(step) for step in range(26)]
    assert all(len(set(batch.tolist())) == len(batch) for batch in batches)
    drawn = np.concatenate(batches)
    counts = np.bincount(drawn[drawn >= 90] - 90, minlength=10)
    assert counts.sum() >= 95 and counts.max() - counts.min() <= 2  # 100 places of ten examples, less repetitions
    assert len(np.unique(drawn[drawn < 90])) == 90  # 100 places: all of the large task


def test_a_step_is_a_function_of_seed_and_step() -> None:
    begun, resumed = plan(0.3), plan(0.3)
    expected = [begun.global_batch(step).tolist() for step in range(40)]
    assert [resumed.global_batch(step).tolist() for step in (39, 0, 20)] == [expected[39], expected[0], expected[20]]
    other = MixedPlan(begun.rows, 8, 4, 0.3)
    assert other.global_batch(0).tolist() != expected[0]


def test_a_task_that_is_not_trained_has_no_place() -> None:
    assert plan(0.5, sizes=(20, 0, 5)).counts(0).tolist() == [17, 0, 8]
