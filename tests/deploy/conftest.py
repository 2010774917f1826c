"""Finished runs of tiny models, to be served."""

from __future__ import annotations

from pathlib import Path

import pytest

from research.tracking.run import Run
from tests.small_runs import SmallRuns


@pytest.fixture(scope="session")
def served_runs(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    task_data: dict[str, dict[str, str]],
    request: pytest.FixtureRequest,
) -> dict[str, Run]:
    """A finished run of each task by name."""
    folder = tmp_path_factory.mktemp("served") / "runs"
    folder.mkdir()
    runs = SmallRuns(folder, tiny_model, task_data, request)
    return {task: runs.train(task) for task in ("sentiment", "ner", "qa", "choice")}
