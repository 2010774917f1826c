"""The rows that a benchmark of many runs has measured so far, so that a later call continues after the last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAME = "rows.jsonl"


def read_rows(output: Path) -> list[dict[str, Any]]:
    """The rows in a folder; none where nothing is measured yet."""
    path = output / NAME
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def append_row(output: Path, row: dict[str, Any]) -> None:
    """Add a row to those in a folder."""
    with (output / NAME).open("a", encoding="utf-8") as rows:
        rows.write(json.dumps(row) + "\n")
