"""Files of any content in the test's folder, and a cache of its own."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from tests.data.opening import Content, WriteFile


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    return folder


@pytest.fixture
def file(tmp_path: Path) -> WriteFile:
    """Write a file: bytes, a text, or rows as JSONL. Returns its path."""

    def write(name: str, content: Content) -> str:
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write
