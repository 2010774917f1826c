"""The step plan: order from (seed, epoch) alone, every example once, layouts that only re-arrange a batch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.batching.plan import StepPlan, assign_to_ranks, epoch_order, evaluation_share, micro_batches

lengths_of_a_batch = st.lists(st.integers(1, 300), max_size=40).map(lambda x: np.array(x, dtype=np.int64))


def test_golden_order() -> None:
    assert epoch_order(0, 0, 10).tolist() == [0, 8, 9, 3, 7, 5, 1, 2, 6, 4]
    assert epoch_order(0, 1, 10).tolist() == [3, 7, 4, 2, 9, 8, 1, 6, 5, 0]
    assert epoch_order(1, 0, 10).tolist() == [2, 0, 1, 4, 5, 6, 7, 8, 3, 9]


def test_golden_steps_keep_the_last_smaller_batch() -> None:
    plan = StepPlan(examples=10, batch_size=4, seed=0)
    assert plan.steps_per_epoch == 3
    expected = [[0, 8, 9, 3], [7, 5, 1, 2], [6, 4], [3, 7, 4, 2]]
    assert [plan.global_batch(step).tolist() for step in range(4)] == expected


def test_order_does_not_depend_on_what_was_asked_before() -> None:
    plan = StepPlan(examples=97, batch_size=8, seed=5)
    steps = list(range(3 * plan.steps_per_epoch))
    forwards = [plan.global_batch(step).tolist() for step in steps]
    epoch_order.cache_clear()
    backwards = [plan.global_batch(step).tolist() for step in reversed(steps)]
    assert forwards == backwards[::-1]


def test_a_cached_order_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        epoch_order(0, 0, 10)[0] = 1


@given(st.integers(1, 400), st.integers(1, 64), st.integers(0, 2**32 - 1), st.integers(0, 3))
@settings(max_examples=60)
def test_every_example_exactly_once_per_epoch(examples: int, batch_size: int, seed: int, epoch: int) -> None:
    plan = StepPlan(examples, batch_size, seed)
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    batches = [plan.global_batch(step) for step in steps]
    assert np.sort(np.concatenate(batches)).tolist() == list(range(examples))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert len(batches[-1]) == examples - batch_size * (len(batches) - 1)


@given(lengths_of_a_batch, st.integers(1, 4))
@settings(max_examples=80)
def test_deal_covers_and_balances(tokens: np.ndarray, ranks: int) -> None:
    batch = np.arange(len(tokens)) + 1000
    shares = assign_to_ranks(batch, tokens, ranks)
    assert len(shares) == ranks
    assert np.sort(np.concatenate(shares)).tolist() == batch.tolist()
    loads = [int(tokens[share - 1000].sum()) for share in shares]
    # Longest first to the emptiest: no rank leads by more than the last example it was given.
    assert max(loads) - min(loads) <= int(tokens.max(initial=0))


def test_deal_golden() -> None:
    shares = assign_to_ranks(np.array([10, 11, 12, 13, 14]), np.array([5, 9, 3, 7, 2]), 2)
    assert [share.tolist() for share in shares] == [[11, 12, 14], [13, 10]]  # 14 and 12 tokens


def test_a_rank_may_get_nothing() -> None:
    shares = assign_to_ranks(np.array([4, 2, 9]), np.array([8, 8, 8]), 4)
    assert [len(share) for share in shares] == [1, 1, 1, 0]
    assert micro_batches(shares[3], np.zeros(0, np.int64), 100) == []


@given(lengths_of_a_batch, st.integers(1, 600), st.booleans())
@settings(max_examples=100)
def test_micro_batches_stay_within_the_budget(tokens: np.ndarray, budget: int, padded: bool) -> None:
    batch = np.arange(len(tokens)) + 7
    parts = micro_batches(batch, tokens, budget, padded)
    assert np.sort(np.concatenate([batch[:0], *parts])).tolist() == batch.tolist()
    for part in parts:
        lengths = tokens[part - 7]
        cost = len(part) * lengths.max() if padded else lengths.sum()
        assert cost <= budget or len(part) == 1  # an example above the budget is a part of its own
    longest = [int(tokens[part - 7].max()) for part in parts]
    assert longest == sorted(longest, reverse=True)


def test_micro_batches_golden() -> None:
    batch, tokens = np.arange(6), np.array([4, 40, 6, 5, 3, 4])
    assert [p.tolist() for p in micro_batches(batch, tokens, 15)] == [[1], [2, 3, 0], [5, 4]]  # 40, 15, 7 tokens
    assert [p.tolist() for p in micro_batches(batch, tokens, 15, padded=True)] == [[1], [2, 3], [0, 5, 4]]
    assert [p.tolist() for p in micro_batches(batch, tokens, 10**6)] == [[1, 2, 3, 0, 5, 4]]


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("examples", [21, 3, 0])
def test_evaluation_covers_every_example_once(ranks: int, examples: int) -> None:
    tokens = np.random.default_rng(0).integers(2, 60, examples)
    shares = [evaluation_share(tokens, rank, ranks, 64) for rank in range(ranks)]
    seen = [row for share in shares for part in share for row in part.tolist()]
    assert sorted(seen) == list(range(examples))
    counts = [len(share) for share in shares]
    assert max(counts) - min(counts) <= 1
    alone = evaluation_share(tokens, 0, 1, 64)  # the same micro-batches, whole, whatever the number of ranks
    dealt = [shares[i % ranks][i // ranks] for i in range(len(alone))]
    assert [part.tolist() for part in dealt] == [part.tolist() for part in alone]


def test_micro_batches_of_two_streams() -> None:
    """Both streams count; padded, each costs its own longest."""
    batch, tokens = np.arange(4), np.array([[10, 2], [2, 10], [3, 3], [1, 1]])
    assert [p.tolist() for p in micro_batches(batch, tokens, 24)] == [[0, 1], [2, 3]]
    assert [p.tolist() for p in micro_batches(batch, tokens, 24, padded=True)] == [[0], [1], [2, 3]]
    assert [p.tolist() for p in micro_batches(batch, tokens, 40, padded=True)] == [[0, 1], [2, 3]]
    assert evaluation_share(tokens, 1, 2, 24)[0].tolist() == [2, 3]


@pytest.mark.slow
@pytest.mark.timeout(120)  # four seconds on a quiet machine
def test_planning_ten_million_examples(record_property: Callable[[str, object], None]) -> None:
    """An epoch's order takes no Python object per example."""
    examples = 10_000_000
    epoch_order.cache_clear()
    blocks, began = sys.getallocatedblocks(), time.process_time()
    order = epoch_order(3, 0, examples)
    seconds, objects = time.process_time() - began, sys.getallocatedblocks() - blocks
    assert np.bincount(order, minlength=examples).tolist().count(1) == examples
    tokens = np.random.default_rng(0).integers(5, 60, examples)
    plan = StepPlan(examples, 32, 3)
    began = time.process_time()
    for step in range(500):
        batch = plan.global_batch(step)
        for share in assign_to_ranks(batch, tokens[batch], 4):
            micro_batches(share, tokens[share], 4096)
    step_seconds = (time.process_time() - began) / 500
    record_property("ten million examples", f"{seconds:.1f} s an epoch, {step_seconds * 1e6:.0f} us a step")
    epoch_order.cache_clear()
    assert objects < 1000
