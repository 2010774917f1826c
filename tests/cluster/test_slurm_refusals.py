"""What cannot run on a real SLURM is reported in one sentence, soon, by a job that ends."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from research.tracking.run import Run
from tests.cluster.conftest import ROOT, Project
from tests.slurm_cluster import Job

pytestmark = pytest.mark.slow
SETTINGS = "set -a; . SLURM/site.local.sh; set +a; "


def refusal(job: Job, within_seconds: float) -> str:
    """The one sentence of a job that has failed with the exit code of a mistake."""
    assert job.wait(within_seconds + 60) == "FAILED", job.last_words
    lines = [line for line in job.said.splitlines() if line.startswith("research: ")]
    assert len(lines) == 1 and "Traceback" not in job.said, job.last_words
    return lines[0].removeprefix("research: ")


def command(project: Project, name: str, *overrides: str) -> str:
    return shlex.join(["research", "train", *project.arguments(project.run(name), *overrides)])


def test_without_srun(project: Project) -> None:
    job = project.sbatch("--nodes=2", "--ntasks-per-node=1", f"--wrap={SETTINGS}{command(project, 'no_srun')}")
    assert refusal(job, 20).startswith("This job has 2 nodes, but the command was started on one of them alone; put")
    assert job.shown()["ExitCode"] == "2:0"


def test_other_devices_than_tasks(project: Project) -> None:
    job = project.submit(project.run("devices"), "--ntasks-per-node=2", overrides=("trainer.devices=3",))
    output_lines = refusal(job, 30)
    assert output_lines.startswith(
        "trainer.devices=3, but SLURM runs 2 tasks on this node; leave trainer.devices at auto, or "
    )
    assert "`#SBATCH --ntasks-per-node=2`" in output_lines


def test_an_address_that_does_not_resolve(project: Project) -> None:
    line = f"{SETTINGS}MASTER_ADDR=nodex99.invalid srun --kill-on-bad-exit=1 {command(project, 'address')}"
    job = project.sbatch("--nodes=2", "--ntasks-per-node=1", f"--wrap={line}")
    job.until(lambda: job.state == "RUNNING")
    assert refusal(job, 60).startswith("The ranks are to meet at nodex99.invalid, but that does not resolve on node1")


def test_a_port_in_use(project: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        line = f"MASTER_PORT={taken.getsockname()[1]} srun --kill-on-bad-exit=1 {command(project, 'port')}"
        job = project.sbatch("--ntasks=2", f"--wrap={SETTINGS}{line}")
        assert " is in use; set MASTER_PORT to a free one" in refusal(job, 60)


def test_a_mistake_in_the_data_is_reported_once(project: Project) -> None:
    """All four ranks find it."""
    (project.folder / "broken.jsonl").write_text('{"text": "good", "label": "a"}\n{"text": "bad"\n')
    job = project.submit(project.run("broken"), "--ntasks-per-node=4", overrides=("data.train=broken.jsonl",))
    assert "broken.jsonl, line 2" in refusal(job, 90)


def submit(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`research submit` in the project's folder."""
    environment = {**project.cluster.environment, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "research.cli", "submit", *arguments]
    return subprocess.run(line, cwd=project.folder, env=environment, capture_output=True, text=True, timeout=60)


def queued(project: Project) -> set[str]:
    return set(project.cluster.says("squeue", "--noheader", "--all", "--format=%A").split())


def test_submit_refuses_what_would_wait_for_ever(project: Project) -> None:
    before = queued(project)
    done = submit(project, "--nodes=4", project.experiment)
    assert done.returncode == 2 and not done.stdout
    assert "SLURM would never start this job" in done.stderr and "main* has 3 nodes" in done.stderr
    done = submit(project, "--partition=short", project.experiment)
    assert done.returncode == 2 and "SLURM would never start job" in done.stderr
    assert "(PartitionConfig: ask for no more time" in done.stderr or "(PartitionTimeLimit: give" in done.stderr
    done = submit(project, project.experiment, "optim.lrr=1")
    assert done.returncode == 2 and "unknown key 'optim.lrr'" in done.stderr
    assert queued(project) <= before


def test_submit_quotes_every_argument(project: Project) -> None:
    """A value that a shell would take apart arrives as it was given."""
    name = "a b; touch owned $(touch owned) 'c' \"d\""
    run = project.run("quoted")
    overrides = (f"wandb.name={name}", "optim.max_steps=3", f"run_dir={run.path}")
    done = submit(project, "--cpus-per-task=1", project.experiment, *overrides)
    assert done.returncode == 0, done.stderr
    shown, output_lines = done.stdout.splitlines()
    assert shlex.split(shown) == [
        "sbatch", "--cpus-per-task=1", "SLURM/train.sbatch", project.experiment, *overrides,
    ]  # fmt: skip
    job = project.job(output_lines.removeprefix("Submitted batch job "))
    assert job.wait() == "COMPLETED", job.last_words
    assert Run.read(run.path).config.wandb.name == name
    assert not list(Path(project.folder).rglob("owned"))
