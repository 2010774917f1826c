"""Rows from memory become files named by their content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from research.common.errors import UserError
from research.data.in_memory import with_stored_rows

ROWS: list[dict[str, Any]] = [
    {"text": "good film", "label": "a", "n": 1},
    {"text": 'the "bad" one', "label": "b", "n": 2},
]


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {**ROWS[i], "n": np.int64(i + 1)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def hub() -> datasets.Dataset:
    names = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"]), "n": datasets.Value("int64")}
    )
    return datasets.Dataset.from_list([{**row, "label": i} for i, row in enumerate(ROWS)], features=names)


@pytest.mark.parametrize(
    "rows", [ROWS, tuple(ROWS), Rows(), hub(), pd.DataFrame(ROWS), (row for row in ROWS)],
    ids=["list", "tuple", "torch", "hub", "pandas", "generator"],
)  # fmt: skip
def test_rows_of_any_kind_are_one_file(rows: Any) -> None:
    stored = with_stored_rows({"seed": 1, "data": {"train": rows, "validation": 0.1, "max_length": 16}})
    path = Path(stored["data"].pop("train"))
    assert stored == {"seed": 1, "data": {"validation": 0.1, "max_length": 16}}
    assert [json.loads(line) for line in path.read_text().splitlines()] == ROWS
    assert path == Path(with_stored_rows({"data": {"train": ROWS}})["data"]["train"])
    assert path != Path(with_stored_rows({"data": {"train": ROWS[:1]}})["data"]["train"])


def test_gaps_stay_gaps() -> None:
    frame = pd.DataFrame([{"text": "a", "text_pair": None, "n": 1.5}, {"text": "b", "text_pair": "c"}])
    path = Path(with_stored_rows({"data": {"train": frame}})["data"]["train"])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"text": "a", "text_pair": None, "n": 1.5}, {"text": "b", "text_pair": "c", "n": None},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], r"data\.train holds no rows"),
        ([ROWS[0], ("good", "a")], r"data\.train, row 1: is a tuple; give a dict"),
        ([{"text": object()}], r"row 0: a value of type object cannot be stored"),
        (ROWS[0], "a list of dicts or a data set of them, not as dict"),
    ],
)
def test_what_is_no_rows_is_refused(rows: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        with_stored_rows({"data": {"train": rows}})
