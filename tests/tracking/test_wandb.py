"""Runs of an online and of an offline W&B: complete, apart, continued, without a key on disk."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from research.tracking import wandb as tracking
from research.tracking.sync import sync
from research.tracking.wandb import Tracker
from research.tracking.wandb_files import run_id
from tests.tracking.wandb_runs import (
    PROVENANCE,
    RESULT,
    inspect,
    logs,
    open_run,
    record,
    rows_of,
    write_predictions,
)
from tests.wandb_server import KEY, WandbServer

pytestmark = [pytest.mark.service, pytest.mark.usefixtures("own_settings")]  # W&B's own process at least


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
