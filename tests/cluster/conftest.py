"""The cluster that these tests share, and a project on it as a user has one."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from research.tracking.run import Run
from tests import attempts
from tests.conftest import make_tiny_model
from tests.slurm_cluster import Cluster, Job, free_port, missing

ROOT = Path(__file__).parents[2]
STEPS, EVALUATED = 200, [60, 120, 180, 200]


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """A cluster; tests without one are skipped, but fail where CI_REQUIRES_SLURM=1 is set."""
    if lacking := missing():
        reason = f"no SLURM here ({', '.join(lacking)} missing): scripts/system_packages.sh installs it"
        if os.environ.get("CI_REQUIRES_SLURM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with Cluster() as cluster:
        yield cluster


class Project:
    """A folder with SLURM/ and an experiment of 200 steps, and what it gives when nothing interrupts it."""

    def __init__(self, cluster: Cluster, folder: Path, files: dict[str, str]) -> None:
        self.cluster, self.folder, self.experiment = cluster, folder, "experiments/reviews.yaml"
        self.lock, self.made = threading.Lock(), dict[tuple[str, ...], Run]()
        shutil.copytree(ROOT / "SLURM", folder / "SLURM")
        cache = folder / "cache"
        (folder / "SLURM" / "site.local.sh").write_text(
            f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={ROOT} HF_DATASETS_CACHE={cache}\n"
            '[ -z "${LARGEST_FILE_BYTES:-}" ] || ulimit -f "$((LARGEST_FILE_BYTES / 1024))"\n'
        )
        content = {
            "task": "sentiment",
            "model": {"name": str(make_tiny_model(folder / "model", hidden_size=64))},
            "data": {**files, "max_length": 64},
            "optim": {"batch_size": 8, "lr": 1e-3, "max_steps": STEPS},
            "trainer": {
                "accelerator": "cpu",
                "precision": "fp32",
                "log_every_steps": 1,
                "checkpoint_every_steps": 7,
                "keep_checkpoints": "all",
                "evaluate_every_steps": 60,
            },
            "wandb": {"mode": "disabled"},
        }
        (folder / "experiments").mkdir()
        (folder / self.experiment).write_text(json.dumps(content), encoding="utf-8")
        attempts.prepare(cache)

    def run(self, name: str) -> Run:
        return Run(self.folder / "runs" / name)

    def arguments(self, run: Run, *overrides: str) -> list[str]:
        return [self.experiment, f"run_dir={run.path}", *overrides]

    def submit(self, run: Run, *options: str, overrides: tuple[str, ...] = (), **extra: str) -> Job:
        """Queue SLURM/train.sbatch for a run folder."""
        return self.sbatch(*options, "SLURM/train.sbatch", *self.arguments(run, *overrides), **extra)

    def sbatch(self, *arguments: str, **extra: str) -> Job:
        number = self.cluster.says("sbatch", "--parsable", "--cpus-per-task=1", *arguments, cwd=self.folder, **extra)
        return self.job(number.strip())

    def job(self, number: str) -> Job:
        job = Job(self.cluster, number, Path())
        job.log = Path(job.shown()["StdOut"])
        return job

    def reference(self, ranks: int, *overrides: str) -> Run:
        """The run that nothing interrupts, without SLURM; made when it is first asked for."""
        key = (str(ranks), *overrides)
        with self.lock:
            if key not in self.made:
                self.made[key] = self._reference(ranks, overrides, Run(self.folder / f"reference{len(self.made)}"))
            return self.made[key]

    def _reference(self, ranks: int, overrides: tuple[str, ...], run: Run) -> Run:
        port, log = free_port(), run.path.with_suffix(".log")
        arguments = ["train", str(self.folder / self.experiment), f"run_dir={run.path}", *overrides]
        shared = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        started = [
            attempts.Attempt(
                arguments, log, {name: str(value) for name, value in {**shared, "RANK": n, "LOCAL_RANK": n}.items()}
            )
            for n in range(ranks)
        ]
        assert [rank.wait() for rank in started] == [0] * ranks, started[0].output
        return run


@pytest.fixture(scope="session")
def project(slurm: Cluster, task_data: dict[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(slurm, tmp_path_factory.mktemp("project"), task_data["sentiment"])
