"""Training goes on where W&B fails, and says how to send the run later."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from research.tracking import wandb as tracking
from research.tracking.wandb import Tracker
from tests.tracking.wandb_runs import (
    RESULT,
    logs,
    open_run,
    record,
    rows_of,
    use,
)
from tests.wandb_server import KEY, WandbServer

pytestmark = [pytest.mark.service, pytest.mark.usefixtures("own_settings")]  # W&B's own process at least


@pytest.mark.parametrize("trouble", ["unreachable", "nonsense", "forbidden", "broken", "short key", "no key"])
def test_a_server_that_fails_at_the_start(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, config = open_run(tmp_path / "run", "online")
    with WandbServer(trouble if trouble in ("nonsense", "forbidden", "broken") else "good") as served:
        use(served, monkeypatch)
        if trouble == "unreachable":
            monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        elif trouble == "short key":
            monkeypatch.setenv("WANDB_API_KEY", "tooshort")
        elif trouble == "no key":
            monkeypatch.delenv("WANDB_API_KEY")
        record(run, config, range(3))
    (file,) = [file for file in logs(run) if file.parent.name.startswith("offline-")]
    assert rows_of(file) == {0: 0, 1: "NaN", 2: 0.5}
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "research"]
    assert f"research sync {run.path}" in warning and KEY not in warning


@pytest.mark.parametrize("trouble", ["nonsense", "gone"])
def test_a_server_that_fails_later(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 2.0)
    run, config = open_run(tmp_path / "run", "online")
    with WandbServer() as served:
        use(served, monkeypatch)
        tracker = Tracker(run, config)
        tracker.log(0, {"x": 1.0})
        served.mode = "nonsense"
        if trouble == "gone":
            served.http.shutdown()
            served.http.server_close()
        tracker.log(1, {"x": 2.0})
        tracker.finish(RESULT, {}, None)
    assert any(r.name == "research" and r.levelno == logging.WARNING for r in caplog.records)
    tracker.log(2, {"x": 3.0})


def test_without_wandb_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    run, config = open_run(tmp_path / "run", "offline")
    record(run, config, range(3))
    assert len([r for r in caplog.records if r.name == "research"]) == 1
