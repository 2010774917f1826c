"""`research sync`: what never arrived is sent, once, from whatever a run folder still holds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from research.common.files import write_json
from research.config.component import choose
from research.config.schema import Config
from research.tracking.run import Run
from research.tracking.sync import has_arrived, sync
from research.tracking.wandb_files import run_id
from tests.tracking.wandb_runs import (
    RESULT,
    logs,
    open_run,
    record,
    rows_of,
    use,
    write_predictions,
)
from tests.wandb_server import WandbServer

pytestmark = [pytest.mark.service, pytest.mark.usefixtures("own_settings")]  # W&B's own process at least


def training(folder: Path, steps: int, step_seconds: float) -> subprocess.Popen[bytes]:
    """A process that makes and records the steps of an offline run, and ends it."""
    script = (
        "import sys, time; from pathlib import Path; from tests.tracking.wandb_runs import *\n"
        "run, config = open_run(Path(sys.argv[1]), 'offline'); run.close()\n"
        "run = Run.open(config); tracker = Tracker(run, config); print('on', flush=True)\n"
        f"for step in range({steps}):\n"
        f"    run.log(step, {{'x': step / 4}}); tracker.log(step, {{'x': step / 4}}); time.sleep({step_seconds})\n"
        "tracker.finish(RESULT, PROVENANCE, None, 0); run.close()"
    )
    place = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, env=place)
    assert process.stdout is not None and process.stdout.readline() == b"on\n"
    return process


def test_kill_loses_seconds_and_sync_completes_them(server: WandbServer, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = training(folder, steps=10**6, step_seconds=0.1)
    time.sleep(6)
    written = Run(folder).metrics()
    process.kill()
    process.communicate()
    (file,) = logs(Run(folder))
    kept, rows = rows_of(file), Run(folder).metrics()
    assert len(written) > 30
    assert list(kept) == list(range(len(kept))) and len(kept) > len(written) - 3 / 0.1
    os.truncate(file, file.stat().st_size - 5)  # the disk has torn the last record
    outcome = sync([folder], timeout_seconds=20, attempts=2, workers=1)[folder]
    assert outcome.startswith(f"sent: up to step {rows[-1]['step']}")
    served = server.run(run_id(folder))
    assert {step: row["x"] for step, row in served.by_step.items()} == {row["step"]: row["x"] for row in rows}


def test_sync_sends_offline_runs_completely(server: WandbServer, tmp_path: Path) -> None:
    runs = [open_run(tmp_path / name, "offline") for name in "ab"]
    for run, config in runs:
        record(run, config, range(5), exit_code=99)
        record(run, config, range(3, 8), predictions=write_predictions(run, 2))
    paths = [run.path for run, _ in runs]
    first = sync(paths, timeout_seconds=30, attempts=2, workers=2)
    assert list(first.values()) == ["sent: up to step 7, ended with exit code 0"] * 2
    for path in paths:
        served = server.run(run_id(path))
        assert sorted(served.by_step) == list(range(8)) and served.by_step[7]["x"] == 1.75
        assert served.exit_code == 0 and served.summary["test/accuracy"] == 0.75
        assert served.config["optim"]["lr"] == 5e-5 and "provenance.json" in served.files
    requests = len(server.operations)
    second = sync(paths, timeout_seconds=30, attempts=2, workers=2)
    assert list(second.values()) == ["already sent: up to step 7"] * 2 and len(server.operations) == requests


def test_sync_follows_a_run_that_writes_for_longer_than_an_upload_may_take(server: WandbServer, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with training(folder, steps=50, step_seconds=0.2) as process:
        assert sync([folder], timeout_seconds=6, attempts=1, workers=1)[folder].startswith("still running: ")
        outcome = sync([folder], timeout_seconds=6, attempts=1, workers=1, live=True)[folder]
        assert process.wait(20) == 0
    assert outcome == "sent: up to step 49, ended with exit code 0"
    assert server.run(run_id(folder)).by_step[49]["x"] == 49 / 4


def test_sync_sends_what_wandb_never_recorded(server: WandbServer, tmp_path: Path) -> None:
    """metrics.jsonl and result.json are the truth: from them alone W&B gets the whole run."""
    run, _ = open_run(tmp_path / "run", "offline")
    for step in range(4):
        run.log(step, {"x": step / 4})
    write_json(run.path / "result.json", RESULT)
    run.close()
    assert sync([run.path], timeout_seconds=30, attempts=2, workers=1)[run.path].startswith("sent: up to step 3")
    served = server.run(run_id(run.path))
    assert [row["x"] for row in served.history] == [0, 0.25, 0.5, 0.75] and served.summary["test/accuracy"] == 0.75


def test_sync_tells_folders_apart(server: WandbServer, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    open_run(tmp_path / "new", "offline")
    torn, _ = open_run(tmp_path / "torn", "offline")
    (torn.path / "wandb" / "offline-run-20260101_000000-abcd").mkdir(parents=True)
    (torn.path / "wandb" / "offline-run-20260101_000000-abcd" / "run-abcd.wandb").write_bytes(b":W&B\xe1\xbe\x00")
    copied, config = open_run(tmp_path / "copied", "offline")
    record(copied, config, range(2))
    (copied.path / "wandb" / "run_id").write_text("another")
    (copied.path / "metrics.jsonl").unlink()
    (copied.path / "result.json").unlink()
    config = Config(task=choose("task", "sentiment"), model=config.model, run_dir=str(tmp_path / "busy"))
    busy = Run.open(config)
    names = ["deleted", "foreign", "new", "torn", "copied", "busy"]
    outcomes = sync([tmp_path / name for name in names], timeout_seconds=10, attempts=1, workers=3)
    busy.close()
    assert [outcomes[tmp_path / name].split(":")[0] for name in names] == [
        "deleted", "foreign", "nothing to send", "half-written", "half-written", "still running",
    ]  # fmt: skip
    assert server.runs == {}


def test_sync_that_fails_says_so_and_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, config = open_run(tmp_path / "run", "offline")
    record(run, config, range(3))

    def attempt(seconds: float) -> str:
        return sync([run.path], timeout_seconds=seconds, attempts=1, workers=1)[run.path]

    with WandbServer("forbidden") as served:
        use(served, monkeypatch)
        refused = attempt(60)
        assert refused.startswith("failed: ") and "invalid key" in refused
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        assert attempt(2) == "failed: W&B did not take it within 2 s"
    with WandbServer() as served:
        use(served, monkeypatch)
        with monkeypatch.context() as patched:
            patched.setattr(served, "stream", lambda name, content: None)  # takes every row and keeps none
            lost = attempt(60)
        assert lost == "failed: W&B shows it up to step -1 of 2" and not has_arrived(lost)
        assert has_arrived(attempt(60))
        assert sorted(served.run(run_id(run.path)).by_step) == [0, 1, 2]
