"""One file divided: shares and folds, stratified, grouped, the same for every run seed; samples that nest."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.cli import main
from research.common.errors import UserError
from research.config.schema import DataConfig
from research.data.sample import sampled, stratified_order
from research.data.split import parts, shares_asked
from research.tracking import predictions
from research.tracking.run import Run
from tests.conftest import write_jsonl
from tests.tasks.conftest import Build
from tests.tasks.conftest import build as build

LABELS = ["a"] * 60 + ["b"] * 30 + ["c"] * 10


@pytest.fixture
def task() -> str:
    return "classification"


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_stratified_and_cover_all(seed: int) -> None:
    found = parts(100, {"validation": 0.1, "test": 0.2}, LABELS, None, seed)
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(100))
    counts = {name: Counter(LABELS[i] for i in rows) for name, rows in found.items()}
    for name, share in {"train": 0.7, "validation": 0.1, "test": 0.2}.items():
        assert len(found[name]) == pytest.approx(100 * share, abs=1)
        for label, count in Counter(LABELS).items():
            assert counts[name][label] == pytest.approx(count * share, abs=1)
    other = parts(100, {"validation": 0.3, "test": 0.2}, LABELS, None, seed)
    assert np.array_equal(found["test"], other["test"])  # whatever is validated on
    assert not np.array_equal(found["test"], parts(100, {"test": 0.2}, LABELS, None, seed + 1)["test"])


@pytest.mark.parametrize("grouped", [False, True])
def test_folds_cover_all_once(grouped: bool) -> None:
    groups = [i // 4 for i in range(100)] if grouped else None
    tests = [parts(100, {"test": 0.2, "validation": 0.1}, LABELS, groups, 0, k / 5) for k in range(5)]
    assert sorted(np.concatenate([fold["test"] for fold in tests]).tolist()) == list(range(100))
    for fold in tests:
        assert sorted(np.concatenate(list(fold.values())).tolist()) == list(range(100))
        assert Counter(LABELS[i] for i in fold["test"])["a"] == pytest.approx(12, abs=4 if grouped else 1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=10, max_size=60), st.integers(0, 99))
def test_a_group_lies_in_one_part(groups: list[int], seed: int) -> None:
    found = parts(len(groups), {"validation": 0.2, "test": 0.3}, None, groups, seed)
    where = [{groups[i] for i in rows} for rows in found.values()]
    assert sum(map(len, where)) == len(set().union(*where)) == len(set(groups))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=80), st.integers(0, 99))
def test_samples_are_nested_and_stratified(labels: list[str], seed: int) -> None:
    order = stratified_order(len(labels), labels, seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    total = Counter(labels)
    for size in range(1, len(labels) + 1):
        sample = sampled(len(labels), labels, size, seed)
        assert set(sample) == set(order[:size]) and (np.diff(sample) > 0).all()
        for label, count in Counter(labels[i] for i in sample).items():
            assert abs(count - size * total[label] / len(labels)) <= 2


def test_shares_that_cannot_be() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"validation": "1.5"}, "data.validation=1.5 must be shares"),
        ({"validation": "0"}, "data.validation=0 must be"),
        ({"validation": "0.5", "test": "0.5"}, "leave some of it"),
        ({"folds": 5}, "needs data.fold, the part to test on: 0 to 4"),
        ({"folds": 5, "fold": 5}, "0 to 4"),
        ({"fold": 1}, "needs data.folds"),
        ({"folds": 5, "fold": 0, "test": "a.csv"}, "remove data.test"),
        ({"folds": 2, "fold": 0, "validation": "0.5"}, "leave nothing"),
        ({"group": "author"}, "needs a share"),
    ]
    for data, said in cases:
        with pytest.raises(UserError, match=said):
            shares_asked(DataConfig(train="x.csv", **data))
    assert shares_asked(DataConfig(train="x.csv", validation="v.csv", test="0.2")) == {"test": 0.2}


ROWS = [{"text": f"film {i}", "label": "ab"[i % 2], "author": f"w{i // 3}"} for i in range(60)]


@pytest.mark.slow
def test_a_run_on_one_file(build: Build, tmp_path: Path) -> None:
    shares = ["data.validation=0.1", "data.test=0.2", "data.group=author"]
    build(ROWS, "seed=0", "data.max_overlap=1")
    assert main(["train", str(tmp_path / "classification.yaml"), *shares, "data.max_train_examples=20"]) == 0
    run = Run.read(tmp_path / "run")
    ids = json.loads((run.path / "splits.json").read_text())
    assert {name: len(found) for name, found in ids.items()} == {"train": 20, "validation": 6, "test": 12}
    author = {f"train-{i}": row["author"] for i, row in enumerate(ROWS)}
    sets = [{author[row_id] for row_id in found} for found in ids.values()]
    assert sum(map(len, sets)) == len(set().union(*sets))
    assert predictions.read(run.predictions / "test.parquet").column("id").to_pylist() == ids["test"]
    before = run.result["metrics"]["test"]["accuracy"]
    assert main(["evaluate", str(run.path), "--split", "test"]) == 0
    assert json.loads((run.path / "evaluations.jsonl").read_text())["scores"]["accuracy"] == before
    module = build(ROWS, *shares, "seed=3")  # another run seed, the same parts
    assert module.data.splits["test"].rows["id"][:] == ids["test"]


def test_slices_of_files(build: Build, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "all.jsonl", ROWS)
    module = build(ROWS, f"data.train={path}[:80%]", f"data.validation={path}[80%:-3]", f"data.test={path}[-3:]")
    sizes = {name: len(split.rows) for name, split in module.data.splits.items()}
    assert sizes == {"train": 48, "validation": 9, "test": 3}
    assert module.data.splits["validation"].rows["text"][0] == "film 48"
    with pytest.raises(UserError, match="holds no lines of the 60 there are"):
        build(ROWS, f"data.train={path}[70:]")


@pytest.mark.slow
def test_the_first_rows_only_where_asked(build: Build) -> None:
    first = (
        build(ROWS, "data.max_train_examples=6", "data.sample=first", "data.max_overlap=1").data.splits["train"].rows
    )
    assert first["text"][:] == [f"film {i}" for i in range(6)]
    drawn = build(ROWS, "data.max_train_examples=6", "data.max_overlap=1").data.splits["train"].rows
    assert drawn["text"][:] != first["text"][:] and Counter(drawn["label"][:]) == {"a": 3, "b": 3}
    larger = build(ROWS, "data.max_train_examples=20", "data.max_overlap=1").data.splits["train"].rows
    assert set(drawn["id"][:]) < set(larger["id"][:])
