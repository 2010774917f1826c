"""Encoded examples in Arrow chunks: rows, lengths, targets and counts as if they were Python lists."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, concatenate_datasets

from research.batching.store import Ragged, Store

LISTS = [[1, 2, 3], [], [4], [5, 6], [7, 8, 9, 10], [], [11]]


def chunks(lists: list[list[int]], cuts: list[int]) -> pa.ChunkedArray:
    borders = [0, *cuts, len(lists)]
    parts = [lists[a:b] for a, b in pairwise(borders)]
    return pa.chunked_array([pa.array(part, pa.list_(pa.int32())) for part in parts])


@pytest.mark.parametrize("cuts", [[], [3], [1, 2, 5], [0, 3, 3, 7]], ids=["one", "two", "four", "empty chunks"])
def test_ragged_over_chunks(cuts: list[int]) -> None:
    column = Ragged(chunks(LISTS, cuts))
    assert column.lengths().tolist() == [3, 0, 1, 2, 4, 0, 1]
    assert [row.tolist() for row in column.rows(np.arange(7))] == LISTS
    assert [row.tolist() for row in column.rows(np.array([6, 0, 4, 0]))] == [[11], [1, 2, 3], [7, 8, 9, 10], [1, 2, 3]]


def test_ragged_of_a_sliced_column() -> None:
    """A slice keeps its parent's values; its offsets point into them."""
    column = Ragged(chunks(LISTS, [4]).slice(2, 4))
    assert [row.tolist() for row in column.rows(np.arange(4))] == LISTS[2:6]


def test_ragged_does_not_copy() -> None:
    array = chunks([list(range(1000))], [])
    row = Ragged(array).rows(np.array([0]))[0]
    assert row.base is not None
    assert row.ctypes.data == array.chunk(0).values.buffers()[1].address


def make_store(parts: int = 3) -> Store:
    rows: list[dict[str, Any]] = [
        {"input_ids": [5, 6, 7], "tag": [-100, 1, 0], "windows": [3], "start": [1], "targets": 2.0},
        {"input_ids": [8, 5], "tag": [-100, -100], "windows": [2], "start": [0], "targets": 0.0},
        {
            "input_ids": [5, 9, 9, 4, 5],
            "tag": [2, -100, 2, 0, -100],
            "windows": [3, 2],
            "start": [2, 0],
            "targets": 3.0,
        },
    ]
    pieces = np.array_split(np.arange(3), parts)
    return Store(
        concatenate_datasets([Dataset.from_list([rows[i] for i in piece]) for piece in pieces]).data.table,
        token_columns=["input_ids", "tag"],
        window_columns=["start"],
    )


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_store(parts: int) -> None:
    store = make_store(parts)
    assert len(store) == 3
    assert store.tokens.tolist() == [3, 2, 5]
    assert store.targets.tolist() == [2.0, 0.0, 3.0]
    assert store.vocabulary(np.array([0, 2])).tolist() == [4, 5, 6, 7, 9]
    assert store.vocabulary(np.array([1])).tolist() == [5, 8]
    assert store.count("tag", 4).tolist() == [2, 1, 2, 0]
    assert store.count("start", 3).tolist() == [2, 1, 1]


def test_weights_replace_the_number_of_targets() -> None:
    store = make_store()
    store.weigh("tag", np.array([0.5, 3.0, 10.0]))
    assert store.targets.tolist() == [3.5, 0.0, 20.5]


def test_store_reads_a_memory_map(tmp_path: Path) -> None:
    """What `datasets` keeps on disk is read in place, over several chunks of its writer."""
    lists = [list(range(i % 7)) for i in range(100)]
    rows = {"input_ids": lists, "windows": [[len(x)] for x in lists], "targets": [1.0] * 100}
    Dataset.from_dict(rows).save_to_disk(tmp_path / "d", num_shards=3)
    store = Store(Dataset.load_from_disk(tmp_path / "d").data.table, ["input_ids"], [])
    assert store.tokens.tolist() == [i % 7 for i in range(100)]
    assert [x.tolist() for x in store.columns["input_ids"].rows(np.array([99, 5, 40]))] == [
        lists[99],
        lists[5],
        lists[40],
    ]


def test_the_digest_is_of_the_rows_and_not_of_their_chunks() -> None:
    def digest(lists: list[list[int]], cuts: list[int]) -> str:
        ids, counts = chunks(lists, cuts), chunks([[len(row)] for row in lists], cuts)
        targets = pa.chunked_array([pa.array([1.0] * len(lists))])
        return Store(pa.table({"input_ids": ids, "windows": counts, "targets": targets}), ["input_ids"], []).digest

    whole = digest(LISTS, [])
    assert digest(LISTS, [3]) == digest(LISTS, [0, 2, 7]) == whole
    moved, other = [[1, 2], [3], *LISTS[2:]], [[1, 2, 9], *LISTS[1:]]
    assert len({whole, digest(moved, []), digest(other, [])}) == 3
