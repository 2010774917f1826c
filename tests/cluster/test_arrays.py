"""Experiments x seeds as one array, queued by one command on a real SLURM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from research.tracking.run import Run
from tests.cluster.conftest import Project
from tests.cluster.test_slurm_refusals import submit


@pytest.mark.slow
def test_two_experiments_over_two_seeds(project: Project) -> None:
    content = json.loads((project.folder / project.experiment).read_text())
    content["optim"] |= {"max_steps": 3, "lr": 1e-4}
    other = Path("experiments/other.yaml")
    (project.folder / other).write_text(json.dumps(content))
    options = ("--cpus-per-task=1", "--array=%3", "--partition=main")
    done = submit(
        project, *options, project.experiment, str(other), "seed=4,5", "optim.max_steps=3", "run_dir=runs/array"
    )
    assert done.returncode == 0, done.stderr
    shown, *folders, reported = done.stdout.splitlines()
    expected = [f"array/{name}/seed{seed}" for name in ("reviews", "other") for seed in (4, 5)]
    assert folders == [f"  task {i}: runs/{folder}" for i, folder in enumerate(expected)]
    options_of_sbatch = "--array=0-3%3 --job-name=reviews+other --cpus-per-task=1 --partition=main"
    assert shown.startswith(f"sbatch {options_of_sbatch} SLURM/array.sbatch experiments/")
    first = reported.removeprefix("Submitted batch job ")
    jobs = [project.job(f"{first}_{task}") for task in range(4)]
    assert [job.wait() for job in jobs] == ["COMPLETED"] * 4, [job.last_words for job in jobs]
    runs = [Run.read(project.run(folder).path) for folder in expected]
    assert [run.config.optim.lr for run in runs] == [1e-3, 1e-3, 1e-4, 1e-4]
    assert [run.config.seed for run in runs] == [4, 5, 4, 5]
    assert [(run.result or {})["steps"] for run in runs] == [3] * 4
    tasks = [run.provenance["attempts"][0]["slurm"]["array_task"] for run in runs]
    assert tasks == [f"{first}_{task}" for task in range(4)]
