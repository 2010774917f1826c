"""Packing: examples of a store end to end in one row, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from research.batching.layout import ROW_TOKENS, make_layout
from research.batching.pack import MicroBatch, Planner, pack
from research.batching.plan import StepPlan
from research.batching.store import Store

WINDOWS = [[3], [2, 4], [1], [5], [2, 2, 1]]


def make_store() -> Store:
    """Token ids say where they are from: 100 * example + place in the example."""
    rows: list[dict[str, Any]] = [
        {
            "input_ids": [100 * i + k for k in range(sum(windows))],
            "token_type_ids": [k % 2 for k in range(sum(windows))],
            "windows": windows,
            "start": [10 * i + w for w in range(len(windows))],
            "targets": float(i),
        }
        for i, windows in enumerate(WINDOWS)
    ]
    return Store(Dataset.from_list(rows).data.table, ["input_ids", "token_type_ids"], ["start"])


def test_pack_lays_examples_end_to_end() -> None:
    micro = pack(make_store(), np.array([3, 1, 0]))
    assert micro.tokens["input_ids"].tolist() == [*range(300, 305), *range(100, 106), 0, 1, 2]
    assert micro.tokens["token_type_ids"].tolist() == [0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert micro.lengths.tolist() == [5, 2, 4, 3]  # the two windows of example 1 stand together
    assert micro.examples.tolist() == [3, 1, 1, 0]
    assert micro.sequences["start"].tolist() == [30, 10, 11, 0]
    assert micro.first.positions.tolist() == [0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 3, 0, 1, 2]
    assert micro.first.size == 14
    assert micro.first.layout is not None


def test_padded_micro_batches_have_no_layout() -> None:
    assert pack(make_store(), np.array([0]), packed=False).first.layout is None


def test_pad_and_unpad_are_inverse() -> None:
    micro = pack(make_store(), np.array([4, 1]))  # windows of 2, 2, 1, 2 and 4 tokens
    grid = micro.pad(micro.tokens["input_ids"], -1)
    assert grid.tolist() == [
        [400, 401, -1, -1],
        [402, 403, -1, -1],
        [404, -1, -1, -1],
        [100, 101, -1, -1],
        [102, 103, 104, 105],
    ]
    assert torch.equal(micro.first.unpad(grid), micro.tokens["input_ids"])
    wide = torch.randn(micro.first.size, 3, 2)
    assert torch.equal(micro.first.unpad(micro.pad(wide, 0)), wide)


def test_pad_passes_gradients_to_real_tokens_only() -> None:
    micro = pack(make_store(), np.array([4, 1]))
    flat = torch.ones(micro.first.size, requires_grad=True)
    micro.pad(flat, 7.0).sum().backward()
    assert flat.grad is not None and flat.grad.tolist() == [1.0] * micro.first.size


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 32])
def test_the_row_is_filled_up(tokens: int) -> None:
    lengths = np.array([tokens])
    ids = torch.arange(1, tokens + 1)
    layout = make_layout(lengths)
    row: Any = layout.fill(ids)
    assert row.shape == (1, -(-tokens // ROW_TOKENS) * ROW_TOKENS)
    assert row[0, :tokens].tolist() == ids.tolist()
    assert set(row[0, tokens:].tolist()) <= {1}
    assert layout.filler == row.shape[1] - tokens
    expected = [0, tokens, layout.T] if layout.filler else [0, tokens]
    assert layout.attention.q_offsets.tolist() == expected and layout.attention.q_offsets.dtype == torch.int32


def make_planner(**settings: Any) -> Planner:
    usual = {"rank": 0, "ranks": 1, "budget_tokens": 6, "packed": True, "sparse_embedding": True}
    return Planner(make_store(), StepPlan(5, 3, seed=0), **{**usual, **settings})


def rows_of(micro: list[MicroBatch]) -> list[int]:
    """The examples that count."""
    return [int(row) for part in micro if not part.idle for row in dict.fromkeys(part.examples.tolist())]


@pytest.mark.in_check(2)
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("sharded", [True, False])
def test_planner_cuts_the_global_batch(ranks: int, packed: bool, sharded: bool) -> None:
    for step in range(4):
        batch = StepPlan(5, 3, seed=0).global_batch(step)
        items = [make_planner(rank=rank, ranks=ranks, packed=packed, sharded=sharded)(step) for rank in range(ranks)]
        counts = [len(item.micro) for item in items]
        real = [sum(not micro.idle for micro in item.micro) for item in items]
        assert counts == [max(real)] * ranks if sharded else [max(1, n) for n in real]
        assert sorted(row for item in items for row in rows_of(item.micro)) == sorted(batch.tolist())
        for item in items:  # every rank knows the whole batch's figures
            assert item.step == step
            assert item.examples == len(batch)
            assert item.targets == sum(batch)
            assert item.tokens == sum(sum(WINDOWS[i]) for i in batch)
            assert item.vocabulary is not None
            assert item.vocabulary.tolist() == sorted(100 * i + k for i in batch for k in range(sum(WINDOWS[i])))
            assert [rows_of([micro]) for micro in item.micro] == [part.tolist() for part in item.rows]
            assert all((micro.first.layout is not None) == packed for micro in item.micro)
            assert all(
                micro.first.size <= 6 or len(rows) == 1 for micro, rows in zip(item.micro, item.rows, strict=True)
            )


def test_planner_without_row_embedding_lists_no_vocabulary() -> None:
    assert make_planner(sparse_embedding=False)(0).vocabulary is None
