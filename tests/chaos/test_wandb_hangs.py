"""W&B lets a run in and then stops answering: the process ends all the same, and leaves no service behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from research.tracking.wandb_files import within
from tests.wandb_server import WandbServer

SCRIPT = """
import sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
from research.config.component import choose
from research.config.schema import Config
from research.tracking import wandb as tracking, wandb_files
from research.tracking.run import Run

tracking.FINISH_SECONDS, wandb_files.TEARDOWN_SECONDS = float(sys.argv[2]), 2.0

def record(folder, mode):
    config = Config(task=choose("task", "classification"), run_dir=folder)
    config.model.name, config.wandb.mode = "tiny", mode
    run = Run.open(config)
    tracker = tracking.Tracker(run, config)
    tracker.log(1, {"train/loss": 1.0})
    pq.write_table(pa.table({"id": ["1"], "gold": ["a"]}), run.predictions / "test.parquet")
    tracker.finish({"metrics": {"test": {"accuracy": 0.5}}}, {"packages": {}}, run.predictions / "test.parquet")
    return tracker

assert not record(sys.argv[1], "online").went_offline
second = record(sys.argv[1] + "-second", "offline")  # of the same process, as in a sweep
assert wandb_files.logs_of(second.run.path)[0].exit_code == 0
print("ended in order")
"""


def services_below(folder: Path) -> list[str]:
    """Processes of wandb's service that were started in `folder` and live."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_service = "wandb-core" in (process / "cmdline").read_text()
            if is_service and f"PWD={folder}" in (process / "environ").read_text().split("\0"):
                found.append(process.name)
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.service
@pytest.mark.parametrize(
    ("mode", "hangs_on", "seconds"),  # our own deadline comes first, or wandb's
    [
        ("silent", "(?!Viewer|UpsertBucket|RunResume)", 0.2),
        ("silent", "CreateArtifact", 4.0),
        ("silent", "PUT|.*file_stream", 0.2),
        ("failing", "(?!Viewer|UpsertBucket|RunResume)", 4.0),
    ],
)
def test_process_ends_and_leaves_no_service(mode: str, hangs_on: str, seconds: float, tmp_path: Path) -> None:
    with WandbServer(mode, hangs_on) as server:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
        environment |= {**server.environment, "HOME": str(tmp_path), "WANDB_HTTP_TIMEOUT": "1", "PWD": str(tmp_path)}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "run"), str(seconds)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
    assert done.returncode == 0 and "ended in order" in done.stdout, done.stderr
    assert "W&B was not closed in order (TimeoutError" in done.stderr
    assert services_below(tmp_path) == []


@pytest.mark.slow
def test_deadline_passes_on_what_was_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        within(60.0, lambda: 1 / 0)
    with pytest.raises(SystemExit):
        within(60.0, lambda: sys.exit(1))
    never = threading.Event()
    with pytest.raises(TimeoutError, match=r"not done after 0\.01 s"):
        within(0.01, lambda: never.wait(0.5))
