"""Encoded data in the cache: taken from there once made, and made again where the file was changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from research.data.encoded import encoded


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
