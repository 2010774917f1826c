from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from research.common.files import write_json
from research.config.component import choose
from research.config.schema import Config
from research.tracking import wandb as tracking
from research.tracking.run import Run
from research.tracking.sync import has_arrived, sync
from research.tracking.wandb import Tracker
from research.tracking.wandb_files import run_id
from tests.wandb_server import KEY, WandbServer

pytestmark = pytest.mark.service  # W&B's own process at least

RESULT = {"task": "sentiment", "metrics": {"test": {"accuracy": 0.75, "per_class": {"good": {"f1": 0.5}}}}, "steps": 3}
PROVENANCE = {"attempts": [{"code": {"commit": "abc", "uncommitted_diff": "+1"}}], "packages": {"torch": "2"}}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, settings or home folder of the person who runs the tests; no long waits."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / ".netrc"))
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "1")
    monkeypatch.setenv("WANDB_MODE", "disabled")  # a shell's setting; the experiment's own wins
    monkeypatch.setattr(tracking, "INIT_SECONDS", 5.0)
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 5.0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "60")  # it answers, however busy the machine
    monkeypatch.setattr(tracking, "INIT_SECONDS", 120.0)
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 120.0)
    with WandbServer() as served:
        use(served, monkeypatch)
        yield served


def use(served: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in served.environment.items():
        monkeypatch.setenv(name, value)


def open_run(folder: Path, mode: str) -> tuple[Run, Config]:
    config = Config(task=choose("task", "sentiment"), run_dir=str(folder))
    config.model.name, config.wandb.mode, config.wandb.tags = "tiny", mode, ["one", "two"]  # type: ignore[assignment]
    run = Run.open(config)
    run.close()
    return run, config


def record(run: Run, config: Config, steps: range, exit_code: int = 0, predictions: Path | None = None) -> Tracker:
    """One attempt of a run; every row's x is its step / 4, except that of step 1."""
    tracker = Tracker(run, config)
    for step in steps:
        row = {"x": math.nan if step == 1 else step / 4}
        run.log(step, row)
        tracker.log(step, row)
    write_json(run.path / "provenance.json", PROVENANCE)
    if exit_code == 0:
        write_json(run.path / "result.json", RESULT)
    tracker.finish(RESULT if exit_code == 0 else {}, PROVENANCE, predictions, exit_code)
    run.close()
    return tracker


def write_predictions(run: Run, rows: int) -> Path:
    path = run.predictions / "test.parquet"
    spans = [[{"start": i, "label": "PER"}] for i in range(rows)]
    pq.write_table(pa.table({"id": [f"é{i}" for i in range(rows)], "gold": range(rows), "spans": spans}), path)
    return path


def logs(run: Run) -> list[Path]:
    return sorted(run.path.glob("wandb/*run-*/run-*.wandb"))


def inspect(file: Path) -> list[dict[str, Any]]:
    """The records of a log, by wandb's own reader."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


def rows_of(file: Path) -> dict[int, Any]:
    return {r["history"]["step"]["num"]: r["history"]["item"].get("x") for r in inspect(file) if r["type"] == "history"}


def test_online_run_arrives_completely(server: WandbServer, tmp_path: Path) -> None:
    run, config = open_run(tmp_path / "sst2" / "seed0", "online")
    record(run, config, range(3), predictions=write_predictions(run, 2))
    served = server.run(run_id(run.path))
    assert served.fields["displayName"] == "sst2/seed0"
    assert served.fields["tags"] == ["one", "two"]
    assert served.config["optim"]["lr"] == 5e-5
    assert served.config["provenance"] == {"attempts": [{"code": {"commit": "abc"}}]}
    assert [row["_step"] for row in served.history] == [0, 1, 2]
    assert served.by_step[2]["x"] == 0.5 and served.by_step[2]["trainer/global_step"] == 2
    assert math.isnan(served.by_step[1]["x"])
    assert served.summary["test/accuracy"] == 0.75 and served.summary["test/per_class/good/f1"] == 0.5
    assert served.exit_code == 0
    assert json.loads(served.files["provenance.json"]) == PROVENANCE
    table = next(content for name, content in served.files.items() if name.endswith(".table.json"))
    assert json.loads(table) == {
        "columns": ["id", "gold", "spans"],
        "data": [["é0", 0, '[{"start": 0, "label": "PER"}]'], ["é1", 1, '[{"start": 1, "label": "PER"}]']],
    }
    assert len(server.runs) == 1 and len(served.artifacts) == 1


@pytest.mark.parametrize("open_run_of_the_caller", [False, True])
def test_an_offline_session_of_other_code_does_not_take_an_online_run_offline(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_run_of_the_caller: bool
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    theirs = wandb.init(dir=tmp_path, id="theirs") if open_run_of_the_caller else wandb.setup()
    try:
        run, config = open_run(tmp_path / "sst2" / "seed0", "online")
        record(run, config, range(3))
        assert [row["_step"] for row in server.run(run_id(run.path)).history] == [0, 1, 2]
        if open_run_of_the_caller:
            assert wandb.run is theirs
            theirs.log({"x": 1.0})
    finally:
        wandb.finish()
        wandb.teardown()


def test_resumed_run_is_the_same_wandb_run(server: WandbServer, tmp_path: Path) -> None:
    run, config = open_run(tmp_path / "run", "online")
    record(run, config, range(6), exit_code=99)
    assert server.run(run_id(run.path)).exit_code == 99
    record(run, config, range(4, 9))
    served = server.run(run_id(run.path))
    assert len(server.runs) == 1
    assert served.exit_code == 0
    assert {step: row["x"] for step, row in served.by_step.items() if step != 1} == {
        step: step / 4 for step in range(9) if step != 1
    }


def test_evaluation_repeated_after_a_resume_is_not_lost(server: WandbServer, tmp_path: Path) -> None:
    run, config = open_run(tmp_path / "run", "online")
    record(run, config, range(0, 51, 25), exit_code=99)
    tracker = Tracker(run, config)
    tracker.log(50, {"validation/f1": 0.5})  # the first attempt was stopped before it
    tracker.log(75, {"x": 1.0})
    tracker.finish({}, {}, None)
    points = [(row["trainer/global_step"], row.get("validation/f1")) for row in server.run(run_id(run.path)).history]
    assert points == [(0, None), (25, None), (50, None), (50, 0.5), (75, None)]


def test_two_runs_of_one_process_stay_apart(server: WandbServer, tmp_path: Path) -> None:
    (one, first), (two, second) = open_run(tmp_path / "a", "online"), open_run(tmp_path / "b", "online")
    trackers = Tracker(one, first), Tracker(two, second)
    for step in range(3):
        trackers[0].log(step, {"x": 1.0})
        trackers[1].log(step, {"x": 2.0})
    trackers[0].finish({}, {}, None)
    trackers[1].log(3, {"x": 2.0})
    trackers[1].finish({}, {}, None, 4)
    served = server.run(run_id(one.path)), server.run(run_id(two.path))
    assert [[row["x"] for row in each.history] for each in served] == [[1, 1, 1], [2, 2, 2, 2]]
    assert [each.exit_code for each in served] == [0, 4]


def test_lightning_uses_the_same_run(server: WandbServer, tmp_path: Path) -> None:
    from lightning.pytorch.loggers import WandbLogger

    run, config = open_run(tmp_path / "run", "online")
    tracker = Tracker(run, config)
    (logger,) = tracker.loggers
    assert isinstance(logger, WandbLogger) and logger.version == run_id(run.path)
    logger.log_metrics({"y": 1.0}, step=0)
    tracker.finish({}, {}, None)
    assert list(server.runs) == [run_id(run.path)] and server.run(run_id(run.path)).by_step[0]["y"] == 1
    assert tracker.loggers == []


def test_offline_run_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    before = dict(os.environ)
    run, config = open_run(tmp_path / "run", "offline")
    record(run, config, range(3), exit_code=3, predictions=write_predictions(run, tracking.TABLE_ROWS + 5))
    assert dict(os.environ) == before
    (file,) = logs(run)
    records = inspect(file)
    assert [r["type"] for r in records].count("history") == 3
    assert rows_of(file) == {0: 0, 1: "NaN", 2: 0.5}
    assert records[-1]["exit"]["exit_code"] == 3
    config_record = next(r["run"]["config"]["update"] for r in records if r["type"] == "run")
    assert config_record["optim"]["batch_size"] == 32
    defined = [r["metric"] for r in records if r["type"] == "metric"]
    assert any(m.get("step_metric") == "trainer/global_step" for m in defined)
    (table,) = file.parent.glob("files/media/table/predictions/*.json")
    assert len(json.loads(table.read_text())["data"]) == tracking.TABLE_ROWS
    assert not (tmp_path / "home").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"run"}


def test_no_key_in_any_file(tmp_path: Path, server: WandbServer) -> None:
    for mode in ("online", "offline"):
        run, config = open_run(tmp_path / mode, mode)
        record(run, config, range(3), predictions=write_predictions(run, 2))
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) > 20
    assert [p for p in files if KEY.encode() in p.read_bytes()] == []


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    run, config = open_run(tmp_path / "run", "disabled")
    before = {p for p in run.path.rglob("*")}
    tracker = Tracker(run, config)
    tracker.log(0, {"x": 1.0})
    tracker.finish(RESULT, {}, None)
    assert {p for p in run.path.rglob("*")} == before and tracker.loggers == []
    assert sync([run.path], timeout_seconds=5, attempts=1, workers=1)[run.path].startswith("nothing to send")


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


def training(folder: Path, steps: int, step_seconds: float) -> subprocess.Popen[bytes]:
    """A process that makes and records the steps of an offline run, and ends it."""
    script = (
        "import sys, time; from pathlib import Path; from tests.tracking.test_tracking import *\n"
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
