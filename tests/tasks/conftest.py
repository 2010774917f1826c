"""One way to build a task on a few rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from research.config.load import load_config
from research.training.build import build as build_module
from tests.conftest import copied, write_experiment, write_jsonl

Build = Callable[..., Any]


@pytest.fixture
def build(task: str, tmp_path: Path, tiny_model: Path) -> Build:
    """Build the fixture `task` on rows or a file, from an experiment that is left in the test's folder: <task>.yaml."""

    def built(rows: list[dict[str, Any]] | Path, *overrides: str) -> Any:
        data = rows if isinstance(rows, Path) else write_jsonl(tmp_path / "rows.jsonl", rows)
        section = {"train": str(data), "validation": copied(data), "max_length": 32, "stride": 8}
        optim = {"epochs": 1, "batch_size": 4, "lr": 1e-3}
        path = write_experiment(tmp_path / f"{task}.yaml", task, tiny_model, section, optim=optim)
        return build_module(load_config(path, overrides))

    return built
