"""Workers that are stopped, killed or of several ranks, by the real command on tiny models."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from research.sweep.study import read_search
from research.sweep.sweepfile import load_sweep
from research.tracking.run import Run
from tests.attempts import Attempt, attempt
from tests.sweep.conftest import MakeSweep

pytestmark = pytest.mark.slow


def outcome(path: Path) -> list[Any]:
    """What must not depend on how often a worker died: states, parameters, scores and the runs' metrics."""
    search = read_search(load_sweep(path))
    found = []
    for trial in search.trials():
        run = Run(search.folder / "trials" / f"{trial.number:04d}" / "seed0")
        rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.metrics()]
        found.append((trial.number, trial.state, trial.params, trial.value, trial.intermediate_values, rows))
    return found


def is_training(folder: Path, number: int, step: int) -> bool:
    run = Run(folder / "trials" / f"{number:04d}" / "seed0")
    return any(row["step"] >= step for row in run.metrics())


def until_training(worker: Attempt, folder: Path, number: int, step: int) -> None:
    assert worker.until(lambda: is_training(folder, number, step)), worker.output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_gives_the_trial_back(number: int, code: int, make_sweep: MakeSweep, tmp_path: Path) -> None:
    reference, stopped = make_sweep(name="reference"), make_sweep(name="stopped")
    assert attempt(["sweep", str(reference)], tmp_path / "log")[0] == 0
    folder = stopped.with_suffix("")
    worker = Attempt(["sweep", str(stopped)], tmp_path / "log")
    until_training(worker, folder, 1, 4)
    worker.send(number)
    assert worker.wait() == code, worker.output
    assert "Trials are given back" in worker.output and "Traceback" not in worker.output
    search = read_search(load_sweep(stopped))
    assert [t.state for t in search.trials()] == [TrialState.COMPLETE, TrialState.WAITING]
    done, output = attempt(["sweep", str(stopped)], tmp_path / "log")
    assert done == 0 and f"Resuming {folder}/trials/0001/seed0 at step" in output
    assert outcome(stopped) == outcome(reference)


def test_two_workers_share_a_search_and_kills_change_nothing(make_sweep: MakeSweep, tmp_path: Path) -> None:
    reference, killed = (
        make_sweep(name="reference", budget={"trials": 6}),
        make_sweep(name="killed", budget={"trials": 6}),
    )
    assert attempt(["sweep", str(reference)], tmp_path / "log")[0] == 0
    rng, folder = random.Random(4), killed.with_suffix("")
    workers = [Attempt(["sweep", str(killed)], tmp_path / f"{i}.log") for i in range(2)]
    resumed = 0
    for kill in range(8):
        victim, rows = kill % 2, rng.randint(0, 20)
        worker = workers[victim]
        if not worker.until(lambda worker=worker, rows=rows: worker.output.count("\nstep ") >= rows):  # type: ignore[misc]
            break  # nothing was left to do for it
        workers[victim].kill()
        resumed += "Resuming" in workers[victim].output
        workers[victim] = Attempt(["sweep", str(killed)], tmp_path / f"{victim}.log")
    assert [worker.wait() for worker in workers] == [0, 0], [worker.output for worker in workers]
    resumed += sum("Resuming" in worker.output for worker in workers)
    assert outcome(killed) == outcome(reference)
    assert resumed >= 1
    claims = [len(list(trial.glob("claim-*"))) for trial in (folder / "trials").iterdir()]
    assert sum(claims) >= 6 + 3


def ranks(path: Path, tmp_path: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """A worker of two ranks as a person starts it: the command finds its other rank itself."""
    command = [sys.executable, "-m", "research.cli", "sweep", str(path), *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=tmp_path)


TWO_RANKS = {"devices": 2, "strategy": "ddp", "accelerator": "cpu", "evaluate_every_steps": 3}


def test_two_ranks_prune_together(make_sweep: MakeSweep, tmp_path: Path) -> None:
    path = make_sweep(
        pruner={"name": "median", "startup_trials": 1}, metric="loss", budget={},
        space={"optim.lr": {"choices": [1e-9, 1.0]}}, sampler={"name": "grid", "seed": 1},
        settings={"optim": {"epochs": 1}, "trainer": TWO_RANKS},
    )  # fmt: skip
    done = ranks(path, tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    search = read_search(load_sweep(path))
    states = [t.state for t in search.trials()]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED]
    for trial in search.trials():
        folder = search.folder / "trials" / f"{trial.number:04d}" / "seed0"
        provenance = json.loads((folder / "provenance.json").read_text())
        assert [tried["ranks"] for tried in provenance["attempts"]] == [2]
        if trial.state == TrialState.PRUNED:
            record = Run(folder).outcome or {}
            assert record["step"] == trial.last_step and record["cost"]["devices"] == 2
    shown = [json.loads(line) for line in (search.folder / "journal.log").read_text().splitlines()]
    ends = [row["trial_id"] for row in shown if row["op_code"] == 6 and row["state"] in (1, 2)]
    assert ends == [0, 1]  # each reported once
    assert len({row["worker_id"].rsplit("-", 1)[0] for row in shown}) == 1  # rank zero alone talks to the study


def test_two_ranks_fail_together_and_go_on(make_sweep: MakeSweep, tmp_path: Path) -> None:
    path = make_sweep(
        space={"optim.lr": {"choices": [1e30, 1e-3]}}, sampler={"name": "grid", "seed": 1}, budget={},
        settings={"optim": {"max_steps": 4, "warmup_ratio": 0.0}, "trainer": TWO_RANKS},
    )  # fmt: skip
    done = ranks(path, tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    states = {t.params["optim.lr"]: t.state for t in read_search(load_sweep(path)).trials()}
    assert states == {1e30: TrialState.FAIL, 1e-3: TrialState.COMPLETE}
