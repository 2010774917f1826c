"""Ranks that the command itself starts: their environment, and that they end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from research.cluster.launch import launch
from research.cluster.signals import STOPPED
from tests.slurm_cluster import is_alive

pytestmark = pytest.mark.process

SLEEP = "import time; time.sleep(600)"


def ranks(program: str, count: int = 3) -> int:
    """The exit code of ranks that run a program."""
    return launch(count, [sys.executable, "-c", f"import os, sys; rank = int(os.environ['RANK'])\n{program}"])


def test_each_knows_its_place(tmp_path: Path) -> None:
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"]
    program = f"import json; json.dump([os.environ[n] for n in {names}], open(f'{tmp_path}/{{rank}}', 'w'))"
    assert ranks(program) == 0
    reported = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(3)]
    assert [row[:6] for row in reported] == [[str(rank), str(rank), "3", "3", "0", "127.0.0.1"] for rank in range(3)]
    assert len({row[6] for row in reported}) == 1


@pytest.mark.parametrize(("failure", "code"), [("sys.exit(2)", 2), ("1 / 0", 1), ("os.kill(os.getpid(), 9)", 137)])
def test_one_that_fails_ends_all(failure: str, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    found = ranks(f"{failure} if rank == 1 else None\n{SLEEP}")
    assert found == code
    assert ("rank 1 was killed by SIGKILL, so the others end." in capfd.readouterr().err) == (code == 137)


def test_one_that_was_stopped_stops_all() -> None:
    """And a failure outweighs a stop."""
    stops = "import signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(75))"
    found = ranks(f"{stops}\nos._exit(75) if rank == 1 else None\n{SLEEP}")
    assert found == STOPPED
    fails = "import signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(3))"
    assert ranks(f"{fails}\nos._exit(75) if rank == 1 else None\n{SLEEP}") == 3


RANK = """
import os, signal, time
folder, rank = os.environ["FOLDER"], os.environ["RANK"]
def note(number, frame):
    open(f"{folder}/{number}-{rank}", "w")
    os._exit(75)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, note)
open(f"{folder}/pid-{rank}", "w").write(str(os.getpid()))
time.sleep(60)
"""
COMMAND = """
import sys
from research.cluster.launch import launch
sys.exit(launch(2, [sys.executable, "-c", sys.argv[1]]))
"""


def started(folder: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A process that has launched two ranks which sleep, and their pids."""
    environment = {**os.environ, "FOLDER": str(folder)}
    parent = subprocess.Popen([sys.executable, "-c", COMMAND, RANK], env=environment)
    files = [folder / f"pid-{rank}" for rank in range(2)]
    deadline = time.monotonic() + 60
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.01)
    return parent, [int(file.read_text()) for file in files]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_are_passed_on(number: int, tmp_path: Path) -> None:
    parent, _ = started(tmp_path)
    parent.send_signal(number)
    assert parent.wait(20) == STOPPED
    assert {path.name for path in tmp_path.glob(f"{int(number)}-*")} == {f"{int(number)}-{rank}" for rank in range(2)}


def test_no_rank_outlives_the_command(tmp_path: Path) -> None:
    parent, pids = started(tmp_path)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)
