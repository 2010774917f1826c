"""Synthetic run folders for the tests of reports: `make_run(task="ner", seed=3, quality=0.9)` writes one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.report.synthetic import MakeRun, write_run


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes a run folder `tmp_path/runs/<name>` (by default the next number) with `synthetic.write_run`."""
    runs = tmp_path / "runs"

    def make(name: str | None = None, **settings: Any) -> Path:
        count = len(list(runs.glob("*"))) if runs.is_dir() else 0
        return write_run(runs / (name or f"{count:04d}"), **settings)

    return make


@pytest.fixture(scope="session")
def grid_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid") / "runs"
    for data_set, task in (("reviews", "sentiment"), ("news", "ner"), ("wiki", "qa")):
        for rate, quality in ((3e-5, 0.9), (1e-4, 0.7)):
            for seed in range(5):
                settings: Any = {"config": {"optim.lr": rate}, "quality": quality}
                write_run(folder / f"{data_set}-{rate}-{seed}", task=task, data_set=data_set, seed=seed, **settings)
    return folder


@pytest.fixture
def grid(grid_once: Path, tmp_path: Path) -> Path:
    """A folder of two settings x three data sets x five seeds; the smaller learning rate is the better setting."""
    return shutil.copytree(grid_once, tmp_path / "runs")
