"""A search by an array of workers on a real SLURM, one of which loses its node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from optuna.trial import TrialState

from research.sweep.study import Search, read_search
from research.sweep.sweepfile import load_sweep
from research.tracking.run import Run
from tests.attempts import attempt
from tests.cluster.conftest import Project
from tests.cluster.slurm_jobs import frozen
from tests.slurm_cluster import Job
from tests.training.test_resume import last_step

pytestmark = pytest.mark.slow
TRIALS, WORKERS = 8, 4


def write_sweep(project: Project, name: str) -> Path:
    content = {
        "experiment": str(project.folder / project.experiment),
        "folder": str(project.folder / "sweeps" / name),
        "settings": {"optim": {"max_steps": 120}, "trainer": {"evaluate_every_steps": 60}},
        "space": {
            "optim.lr": {"low": 1e-4, "high": 1e-2, "log": True},
            "optim.warmup_ratio": {"low": 0.0, "high": 0.3},
        },
        "sampler": {"name": "random"},
        "budget": {"trials": TRIALS},
        "storage": {"heartbeat_seconds": 0.5, "dead_after_seconds": 5, "lock_seconds": 5},
    }
    path = project.folder / f"{name}.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def scores(search: Search) -> list[tuple[int, TrialState, float | None]]:
    return [(trial.number, trial.state, trial.value) for trial in search.trials()]


def run_of(path: Path, number: int) -> Run:
    return Run(path.parent / "sweeps" / path.stem / "trials" / f"{number:04d}" / "seed0")


def at_work(path: Path, job: Job) -> bool:
    """Has the job made some steps of a trial that it has not ended?"""
    number = job.shown()["JobId"]
    for run in (run_of(path, trial) for trial in range(TRIALS)):
        tried = run.provenance.get("attempts", [])
        if any(a["slurm"]["job"] == number and a["ended"] is None for a in tried) and last_step(run) >= 15:
            return True
    return False


def lose_in_mid_trial(path: Path, job: Job) -> str:
    """Cut the power of the job's node while it is at work on a trial. Returns the node."""
    while True:
        job.until(lambda: at_work(path, job))
        with frozen(job.ranks()):
            if at_work(path, job):
                node = job.shown()["NodeList"]
                job.cluster.cut_power(node)
                return node


def test_an_array_of_workers_of_which_one_loses_its_node(project: Project) -> None:
    cluster, path = project.cluster, write_sweep(project, "array")
    array = project.sbatch(
        f"--array=0-{WORKERS - 1}", "--partition=frail,alone", "--exclusive", "SLURM/sweep.sbatch", str(path)
    )
    jobs = [project.job(f"{array.id}_{task}") for task in range(WORKERS)]
    lost, others = jobs[0], jobs[1:]
    node = lose_in_mid_trial(path, lost)
    lost.until(lambda: lost.restarts == 1)
    cluster.start_node(node)
    assert [job.wait() for job in jobs] == ["COMPLETED"] * WORKERS, [job.shown() for job in jobs] + [cluster.logs()]
    assert [job.restarts for job in others] == [0] * len(others)

    search = read_search(load_sweep(path))
    assert [state for _, state, _ in scores(search)] == [TrialState.COMPLETE] * TRIALS
    attempts = [run_of(path, number).provenance["attempts"] for number in range(TRIALS)]
    [continued] = [tried for tried in attempts if len(tried) > 1]
    assert continued[0]["ended"].startswith("lost") and continued[1]["resumed_from_step"] >= 7
    assert {tried["slurm"]["array_task"].split("_")[0] for each in attempts for tried in each} == {array.id}

    alone = write_sweep(project, "alone")
    code, output = attempt(["sweep", str(alone)], project.folder / "alone.log")
    assert code == 0, output
    assert scores(search) == scores(read_search(load_sweep(alone)))
