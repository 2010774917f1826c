"""Rows written with columns of any type, and with none of the user's own lost."""

from __future__ import annotations

import csv
import datetime
import decimal
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from research.data.opening import open_split
from research.data.source import Split
from research.inference.outputs import write_csv, write_jsonl
from research.tracking.predictions import make_table

DAY = datetime.datetime(2026, 5, 4, 3, 2, 1)
TYPES = {
    "timestamp": (pa.array([DAY, None], pa.timestamp("us")), "2026-05-04T03:02:01"),
    "zone": (pa.array([DAY, None], pa.timestamp("ms", "UTC")), "2026-05-04T03:02:01+00:00"),
    "date": (pa.array([DAY.date(), None]), "2026-05-04"),
    "time": (pa.array([DAY.time(), None]), "03:02:01"),
    "decimal": (pa.array([decimal.Decimal("1.50"), None]), "1.50"),
    "bytes": (pa.array(["é".encode(), None]), "é"),
    "raw": (pa.array([b"\xff\x00", None]), "/wA="),
    "nan": (pa.array([float("nan"), None]), None),
    "nested": (pa.array([[{"at": DAY, "x": float("inf")}], None]), [{"at": "2026-05-04T03:02:01", "x": None}]),
    "large": (pa.array(["a", None], pa.large_string()), "a"),
    "view": (pa.array(["a", None], pa.string_view()), "a"),
    "category": (pa.array(["a", None]).dictionary_encode(), "a"),
    "lists": (pa.array([["a"], None], pa.large_list(pa.large_string())), ["a"]),
    "fixed": (pa.array([[1, 2], None], pa.list_(pa.int16(), 2)), [1, 2]),
    "map": (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())), None),
    "nothing": (pa.nulls(2), None),
    "unsigned": (pa.array([2**64 - 1, None], pa.uint64()), 2**64 - 1),
}


@pytest.fixture
def split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Split:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = tmp_path / "in.parquet"
    text = pa.array(["good", "bad"], pa.large_string())
    pq.write_table(pa.table({"text": text, **{name: array for name, (array, _) in TYPES.items()}}), path)
    where = {"hub_name": None, "hub_config": None, "hub_revision": None}
    return open_split(name="input", value=str(path), fields={"text": "text"}, **where)


def test_columns_of_every_type_pass_through(split: Split, tmp_path: Path) -> None:
    table = make_table(split, {"gold": [None, None], "prediction": ["p", "n"]}, "classification", {})
    write_jsonl(table, tmp_path / "out.jsonl")
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    expected = {name: value for name, (_, value) in TYPES.items() if name != "map"}
    assert {name: first[name] for name in expected} == expected and "k" in str(first["map"])
    assert all(second[name] is None for name in TYPES) and second["text"] == "bad"
    write_csv(table, tmp_path / "out.csv", (), False)
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    for name, value in expected.items():
        shown = "" if value is None else value if isinstance(value, str) else json.dumps(value)
        assert (first[name], second[name]) == (shown, "")


def test_columns_whose_names_are_taken_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = tmp_path / "in.csv"
    path.write_text(",text,prediction,gold,probabilities,data_prediction,__line__\n0,good,mine,G,P,x,9\n")
    where = {"hub_name": None, "hub_config": None, "hub_revision": None}
    split = open_split(name="input", value=str(path), fields={"text": "text"}, **where)
    (row,) = make_table(split, {"prediction": ["p"], "probabilities": [[1.0]]}, "classification", {}).to_pylist()
    assert row == {
        "id": "input-0", "prediction": "p", "probabilities": [1.0], "text": "good", "column_1": "0",
        "data_prediction_": "mine", "data_gold": "G", "data_probabilities": "P", "data_prediction": "x",
        "data_line": "9",
    }  # fmt: skip


def test_csv_has_a_column_for_each_class_and_no_control_characters(tmp_path: Path) -> None:
    table = pa.table({
        "text": ["a\x1b[31mb\x00\nc", "=1+1"], "probabilities": [[0.25, 0.75], [1.0, 0.0]],
        "probability_pos": ["u", "v"],
    })  # fmt: skip
    path = tmp_path / "out.csv"
    write_csv(table, path, ["neg", "pos"], False)
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "text": "a[31mb\nc", "probability_neg": "0.25", "data_probability_pos": "0.75", "probability_pos": "u"
    }  # fmt: skip
    assert rows[1]["text"] == "=1+1"
    write_jsonl(table, tmp_path / "out.jsonl", ["neg", "pos"])
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first["probabilities"] == {"neg": 0.25, "pos": 0.75} and first["probability_pos"] == "u"
    write_csv(table, path, ["neg", "pos"], True)
    with open(path, encoding="utf-8", newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == ["a[31mb\nc", "'=1+1"]
