"""A process that is stopped while it starts says so by its exit code; one rank that fails is heard once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from research.cluster.signals import STOPPED, exit_immediately
from tests.attempts import Attempt
from tests.slurm_cluster import free_port

pytestmark = pytest.mark.process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_during_the_imports(number: int, experiments: dict[str, Path], tmp_path: Path) -> None:
    """Nothing has begun, nothing is lost: exit code 75, so that a job script queues it again."""
    command = [sys.executable, "-X", "importtime", "-m", "research.cli", "train", str(experiments["ner"])]
    with open(tmp_path / "log", "wb") as log:
        running = subprocess.Popen([*command, f"run_dir={tmp_path}/run"], stderr=log)
        while b"| torch" not in (tmp_path / "log").read_bytes():
            assert running.poll() is None
            time.sleep(0.01)
        running.send_signal(number)
        assert running.wait(30) == STOPPED
    assert b"research: stopped while starting; run the same command again." in (tmp_path / "log").read_bytes()
    assert not (tmp_path / "run").exists()


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with exit_immediately():
        assert signal.getsignal(signal.SIGTERM) != before[1] and signal.getsignal(signal.SIGINT) == before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before


def ranks(arguments: list[str], folder: Path, count: int = 2, **variables: str) -> list[Attempt]:
    """A command as several ranks, which write into one log as those of a job do."""
    place = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **variables}
    each = [{**place, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    return [Attempt(arguments, folder / "log", rank) for rank in each]


def test_a_mistake_of_all_ranks_is_heard_from_rank_zero_first(experiments: dict[str, Path], tmp_path: Path) -> None:
    arguments = ["train", str(experiments["ner"]), f"run_dir={tmp_path}/run", "data.train=nowhere.conll"]
    first, second = ranks(arguments, tmp_path)
    assert first.wait() == 2
    second.kill()  # as a launcher would, within a second
    assert first.output.count("research: ") == 1 and "nowhere.conll: no such file" in first.output


def test_under_srun_a_failure_outranks_a_stop(experiments: dict[str, Path], tmp_path: Path) -> None:
    """srun reports the highest exit code of all: 75 may be it only if no rank has failed."""
    arguments = ["train", str(experiments["ner"]), f"run_dir={tmp_path}/run", "optim.lr=0"]
    step = {
        "SLURM_JOB_ID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_STEP_NODELIST": "node1",
    }  # fmt: skip
    alone = {**step, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1"}
    assert Attempt(arguments, tmp_path / "log", alone).wait() == 2
    assert Attempt(arguments, tmp_path / "log", step).wait() == 102 > STOPPED


@pytest.mark.slow
def test_a_rank_that_is_gone_ends_the_others(experiments: dict[str, Path], tmp_path: Path) -> None:
    """Even without a launcher that would: no rank waits indefinitely."""
    run = tmp_path / "run"
    first, second = ranks(["train", str(experiments["ner"]), f"run_dir={run}", "trainer.accelerator=cpu"], tmp_path)
    assert first.until(lambda: (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size > 0)
    second.kill()
    assert first.wait() == 1
    assert "research: rank 0 failed." in first.output
    assert os.path.exists(run / "provenance.json") and '"ended": "failed: ' in (run / "provenance.json").read_text()
