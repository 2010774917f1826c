"""The exact search, against a sort of all cosines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from research.retrieval import best as module
from research.retrieval.best import best


def test_blocks_give_what_a_sort_of_all_scores_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_DOCUMENTS", 7)
    monkeypatch.setattr(module, "BLOCK_QUERIES", 2)
    rng = np.random.default_rng(0)
    documents = rng.integers(-3, 4, (40, 5)).astype(np.float32)  # integers: sums are exact, and scores are tied
    documents[11] = documents[30] = documents[2]
    queries = rng.integers(-3, 4, (5, 5)).astype(np.float32)
    np.save(tmp_path / "d.npy", documents)
    scores, places = best(queries, np.load(tmp_path / "d.npy", mmap_mode="r"), 40)
    expected = queries @ documents.T
    order = np.argsort(-expected, axis=1, kind="stable")
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(expected, order, axis=1))
    assert best(queries, documents, 3)[0].tolist() == scores[:, :3].tolist()
    assert best(queries, documents, 99)[1].shape == (5, 40)
