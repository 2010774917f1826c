"""One way to build a task on a few rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from research.config.load import load_config
from research.training.build import build as build_module
from tests.conftest import write_jsonl

Build = Callable[..., Any]


@pytest.fixture
def build(task: str, tmp_path: Path, tiny_model: Path) -> Build:
    """Build the fixture `task` on rows or a file, from an experiment that is left in the test's folder: <task>.yaml."""

    def built(rows: list[dict[str, Any]] | Path, *overrides: str) -> Any:
        data = rows if isinstance(rows, Path) else write_jsonl(tmp_path / "rows.jsonl", rows)
        content = {
            "task": task,
            "model": {"name": str(tiny_model)},
            "data": {"train": str(data), "validation": str(data), "max_length": 32, "stride": 8},
            "optim": {"epochs": 1, "batch_size": 4, "lr": 1e-3},
            "trainer": {"precision": "fp32", "devices": 1},
            "wandb": {"mode": "disabled"},
            "run_dir": str(tmp_path / "run"),
        }
        path = tmp_path / f"{task}.yaml"
        path.write_text(json.dumps(content), encoding="utf-8")
        return build_module(load_config(path, overrides))

    return built
