"""Jobs whose program runs in a container, simulated by a program that hides SLURM's commands."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import EVALUATED, ROOT, STEPS, Project
from tests.cluster.slurm_jobs import advanced, requeued
from tests.training.test_resume import assert_same

pytestmark = [pytest.mark.slow, pytest.mark.service]

CONTAINER = """#!/bin/bash
# container --name 'NAME OF IMAGE' COMMAND...: of the host's programs only Python and this package are inside.
[ "$1" = --name ] || exit 90
echo "in $2: $SLURM_PROCID, offline $HF_HUB_OFFLINE"
shift 2
export PATH=%s
! command -v scontrol && ! command -v sbatch || exit 91
exec "$@"
"""


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """A command that runs its arguments where there is neither scontrol nor sbatch."""
    inside = tmp_path / "inside"
    inside.mkdir()
    for name in ("python", "research"):
        (inside / name).symlink_to(Path(sys.executable).with_name(name))
    for name in ("bash", "env", "uname", "git"):
        (inside / name).symlink_to(shutil.which(name) or "")
    path = tmp_path / "container"
    path.write_text(CONTAINER % inside)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("signal", ["USR1", "USR2"])
def test_a_container_without_slurm_is_requeued(signal: str, project: Project, container: Path) -> None:
    run = project.run(f"container{signal}")
    wrapped: Any = {"RESEARCH_CONTAINER": f"{container} --name 'an image'", "HF_HUB_OFFLINE": "0"}
    job = project.submit(run, "--nodes=2", **wrapped)
    advanced(job, run, 1, 10)
    job.cluster.says("scancel", "--batch", f"--signal={signal}", job.id)
    requeued(job, 1)
    assert job.wait() == "COMPLETED", job.last_words
    assert_same(run, project.reference(2), STEPS, EVALUATED)
    assert {f"in an image: {rank}, offline 0" for rank in (0, 1)} <= set(job.said.splitlines())
    assert "Resuming" in job.said


def test_submitted_from_another_folder(project: Project, tmp_path: Path) -> None:
    """Scripts are found by RESEARCH_SLURM, paths are those of the folder, and sbatch's options are passed on."""
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(project.folder / project.experiment, elsewhere / "exp.yaml")
    environment = {**project.cluster.environment, "RESEARCH_SLURM": str(project.folder / "SLURM")}
    command = [sys.executable, "-m", "research.cli", "submit", "--mem=100M", "--comment=hello", "--cpus-per-task=1"]
    said = subprocess.run(
        [*command, "exp.yaml", f"run_dir={run}"],
        cwd=elsewhere, env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    job = project.job(said.stdout.split()[-1])
    assert job.wait() == "COMPLETED", job.last_words
    assert job.shown()["WorkDir"] == str(elsewhere) and job.shown()["Comment"] == "hello"
    assert_same(type(project.run(""))(run), project.reference(1), STEPS, EVALUATED)
