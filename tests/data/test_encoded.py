"""Encoded data in the cache: taken from there once made, and made again where the file was changed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from research.data.encoded import PACKAGE, _digest, _ours, encoded


def test_a_flipped_bit_in_the_cache_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    datasets.Dataset.from_dict({"text": ["a", "bb", "ccc"]}).save_to_disk(tmp_path / "rows")
    calls: list[int] = []

    def encode(rows: dict[str, Any]) -> dict[str, Any]:
        calls.append(len(rows["text"]))
        return {"input_ids": [[7] * len(text) for text in rows["text"]]}

    def made() -> tuple[datasets.Dataset, list[list[int]]]:
        found = encoded(datasets.load_from_disk(tmp_path / "rows"), encode, ["key"], "Tokenising train")
        return found, found["input_ids"][:]

    right = [[7], [7, 7], [7, 7, 7]]
    found, values = made()
    assert values == right and calls == [3]
    assert made()[1] == right and calls == [3]
    path = Path(found.cache_files[0]["filename"])
    content = bytearray(path.read_bytes())
    content[content.index(b"\x07\x00\x00\x00")] ^= 8
    del found
    path.write_bytes(content)
    assert made()[1] == right and calls == [3, 3]
    assert "the file in the data cache is damaged" in caplog.text
    assert made()[1] == right and calls == [3, 3]


def test_the_cache_goes_by_the_code_that_encodes(tmp_path: Path) -> None:
    """A changed file of a task, of a metric or of the data makes another key."""
    ours = [path.relative_to(PACKAGE) for path in _ours()]
    assert {"tasks/ner.py", "metrics/tags.py", "data/long_texts.py", "training/datamodule.py"} <= {*map(str, ours)}
    copies = tuple(tmp_path / str(path).replace("/", "-") for path in ours)
    for path, copy in zip(ours, copies, strict=True):
        copy.write_bytes((PACKAGE / path).read_bytes())
    keys = [_digest.__wrapped__(copies)]
    for copy in copies[:: len(copies) // 4]:
        copy.write_bytes(copy.read_bytes() + b"\n")
        keys.append(_digest.__wrapped__(copies))
    assert len({*keys}) == len(keys) >= 5


READ = """
import os, sys
import datasets
from research.data.opening import open_split
if len(sys.argv) > 2:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)  # permissions mean nothing to root
split = open_split(name="train", value=sys.argv[1], hub_name=None, hub_config=None, hub_revision=None,
                   fields={"text": "text"}, optional=(), limit=None)
print(split.rows["text"][:])
"""


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.process
def test_a_warm_cache_that_is_read_only_opens(readable: Path) -> None:
    (readable / "rows.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    environment = {**os.environ, "HF_DATASETS_CACHE": str(readable / "cache"), "HF_HOME": str(readable / "home")}
    as_nobody = ["nobody"] if os.getuid() == 0 else []

    def read(*who: str) -> str:
        command = [sys.executable, "-c", READ, str(readable / "rows.jsonl"), *who]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.stdout.strip() or done.stderr

    assert read() == "['a', 'b']"
    for path in (readable / "cache").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert read(*as_nobody) == "['a', 'b']"
    finally:
        for path in (readable / "cache").rglob("*"):
            path.chmod(0o755)


@pytest.mark.parametrize(
    ("rows", "characters", "at_once"), [(2500, 20, {1000, 500}), (25, 100_000, {9, 7}), (2, 3_000_000, {1})]
)
def test_long_rows_are_encoded_few_at_a_time(rows: int, characters: int, at_once: set[int]) -> None:
    """Encoding takes 170 bytes for each character: 0.2 GB for a batch, whatever the rows hold."""
    seen: list[int] = []

    def lengths(batch: dict[str, list[str]]) -> dict[str, list[int]]:
        seen.append(len(batch["text"]))
        return {"length": [len(text) for text in batch["text"]]}

    texts = datasets.Dataset.from_dict({"text": ["x" * characters] * rows})
    found = encoded(texts, lengths, [rows, characters], "encoding")
    assert set(seen) == at_once and sum(seen) == rows
    assert found["length"][:] == [characters] * rows
