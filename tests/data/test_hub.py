"""Data sets in the hub's format: a folder, a cache that a download left, no network."""

import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from research.data import hub
from tests.data.opening import LABELLED, TAGGED, TEXT, WriteFile, fails, opened


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A data set in the hub's format with label numbers, one row unlabelled."""
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["neg", "pos"]),
            "tags": datasets.List(datasets.ClassLabel(names=["O", "B-X"])),
            "tokens": datasets.List(datasets.Value("string")),
        }
    )
    rows = {
        "text": ["a", "b", "c", "d"],
        "label": [1, 0, 1, -1],
        "tags": [[0, 1], [], [1], [0]],
        "tokens": [["a", "b"], [], ["c"], ["d"]],
    }
    data = datasets.Dataset.from_dict(rows, features=features)
    path = tmp_path / "sets" / "mine"
    (path / "data").mkdir(parents=True)
    data.to_parquet(path / "data" / "train-00000-of-00001.parquet")
    data.select([2]).to_parquet(path / "data" / "test-00000-of-00001.parquet")
    return str(path)


def test_hub_folder(folder: str) -> None:
    split = opened("train[:75%]", {**LABELLED, **TAGGED}, hub_name=folder)
    assert split.rows.column_names == ["id", "text", "label", "tokens", "tags"]
    assert split.rows["label"][:] == ["pos", "neg", "pos"]
    assert split.rows["tags"][:] == [["O", "B-X"], [], ["B-X"]]
    assert split.rows["id"][:] == ["train-0", "train-1", "train-2"]
    assert split.origin == f"{folder} (train[:75%])" and split.where(2) == f"{folder} (train[:75%]), row 2"
    assert not split.lines and len(split.fingerprint) == 64
    assert split.fingerprint == opened("train[:75%]", TEXT, hub_name=folder).fingerprint
    assert split.fingerprint != opened("train[:50%]", TEXT, hub_name=folder).fingerprint
    assert split.rows._fingerprint == opened("train[:75%]", {**LABELLED, **TAGGED}, hub_name=folder).rows._fingerprint


def test_hub_folder_unlabelled_row(folder: str) -> None:
    fails("(train), row 3", "'label' is null", value="train", fields=LABELLED, hub_name=folder)
    assert opened("train", LABELLED, hub_name=folder, optional=["label"]).rows["label"][3] is None


def test_a_folder_named_like_the_split_is_no_file(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test").mkdir()
    monkeypatch.chdir(tmp_path)
    assert opened("test", hub_name=folder).rows["text"][:] == ["c"]


def test_a_file_beside_a_hub_data_set(folder: str, file: WriteFile) -> None:
    assert opened(file("a.jsonl", [{"text": "mine"}]), hub_name=folder).rows["text"][:] == ["mine"]


def test_hub_faults(folder: str, tmp_path: Path) -> None:
    fails("(dev)", "Unknown split", "train", value="dev", hub_name=folder)
    fails("BuilderConfig", "large", value="train", hub_name=folder, hub_config="large")
    (tmp_path / "sets" / "bare").mkdir()
    fails("bare (train)", value="train", hub_name=str(tmp_path / "sets" / "bare"))


@pytest.mark.process
def test_hub_without_network(tmp_path: Path) -> None:
    script = (
        "import sys, datasets\n"
        "from research.data.opening import open_split\n"
        "from research.common.errors import UserError\n"
        "try: open_split(name='train', value='train', hub_name='stanfordnlp/sst2', hub_config=None,"
        " hub_revision=None, fields={'text': 'sentence'})\n"
        "except UserError as error: print(error)\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    (sentence,) = run.stdout.splitlines()
    assert sentence.startswith("stanfordnlp/sst2: the hub (http://127.0.0.1:9) cannot be reached")
    assert "local file" in sentence and "`research prepare`" in sentence


def test_hub_without_network_serves_what_is_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    """The cache as a download leaves it: <owner>___<name>/<configuration>/<version>/<commit>."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    path = cache / "someone___reviews" / "default" / "0.0.0" / commit
    path.mkdir(parents=True)
    data = datasets.Dataset.from_dict({"text": ["kept"]})
    with datasets.arrow_writer.ArrowWriter(path=str(path / "reviews-train.arrow"), features=data.features) as writer:
        writer.write_table(data.data.table)
        _, size = writer.finalize()
    info = datasets.DatasetInfo(
        features=data.features, builder_name="parquet", dataset_name="reviews", config_name="default",
        splits={"train": {"name": "train", "num_examples": 1, "num_bytes": size, "dataset_name": "reviews"}},
    )  # fmt: skip
    info.write_to_directory(str(path))
    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    assert opened("train", hub_name="someone/reviews").rows["text"][:] == ["kept"]
    assert opened("train", hub_name="someone/reviews", hub_revision=commit).rows["text"][:] == ["kept"]
    other = commit[::-1]
    fails("not of revision " + other, value="train", hub_name="someone/reviews", hub_revision=other)
    assert not datasets.config.HF_HUB_OFFLINE
