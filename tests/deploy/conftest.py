"""Finished runs of tiny models, to be served."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

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


@contextmanager
def listening(app: Any) -> Iterator[int]:
    """An application at a port of this machine, in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(100)
