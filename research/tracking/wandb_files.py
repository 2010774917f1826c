"""W&B on this machine: where it may write, its service process, and the logs that it leaves in a run folder."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from research.common import compat
from research.common.files import write_atomically

FAILURES = (Exception, SystemExit)  # wandb calls sys.exit when its service process has died
TEARDOWN_SECONDS, KILLED_SECONDS = 30.0, 2.0  # wandb's teardown, and what it does when its service is gone
OPEN: set[str] = set()  # ids of the W&B runs of this process


def end_session() -> None:
    """Stop wandb's service process, which keeps the ids, folders, address and mode it started with.

    Not while a run is open, ours or one that the caller began with `wandb.init`.
    """
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is None and not OPEN:
        with suppress(*FAILURES):
            within(TEARDOWN_SECONDS, wandb.teardown)


def within(seconds: float, act: Callable[[], object]) -> None:
    """Do something of wandb's in a thread. Raises what it raises, or TimeoutError, having killed wandb's service.

    Not all that wandb waits for has a limit of its own. Without its service nothing of it waits any longer.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="wandb", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        kill_service()
        thread.join(KILLED_SECONDS)
        raise TimeoutError(f"not done after {seconds:g} s")
    if failed:
        raise failed[0]


def kill_service() -> None:
    """Kill wandb's service, a child of this process; the records that it has written to disk stay."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and "wandb-core" in (folder / "cmdline").read_text():
                os.kill(int(folder.name), signal.SIGKILL)


@contextmanager
def environment(run_dir: Path, offline: bool) -> Iterator[None]:
    """What only environment variables tell wandb: every file inside the run folder, no look-ups, no chatter.

    Online its settings stay where `wandb login --host` put them.
    """
    folder = run_dir.absolute() / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    own = {
        "WANDB_MODE": "offline" if offline else "online",  # the experiment's word, whatever the shell exports
        "WANDB_DIR": str(run_dir.absolute()),
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_DATA_DIR": str(folder / "data"),
        "WANDB_ERROR_REPORTING": "false",  # else even offline it looks up W&B's address
        "WANDB_SILENT": "true",
        **({"WANDB_CONFIG_DIR": str(folder / "config")} if offline else {}),
    }
    before = {key: os.environ[key] for key in own if key in os.environ}
    os.environ.update(own)
    try:
        yield
    finally:
        for key in own:
            os.environ.pop(key, None)
        os.environ.update(before)


def run_id(run_dir: Path) -> str:
    """The W&B id of a run folder, drawn when it is first asked for."""
    path = run_dir / "wandb" / "run_id"
    if not path.is_file():
        with write_atomically(path) as temporary:
            temporary.write_text(secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8")


@dataclass
class Log:
    """What one attempt of a run has left on disk, as W&B's own reader shows it."""

    file: Path
    run_id: str
    start_time: str
    step: int  # of its last row; -1 without one
    exit_code: int | None  # None: it was killed, or is still being written
    entity: str
    project: str


def logs_of(run_dir: Path) -> list[Log]:
    """The readable logs of this run, oldest first; those of another run in its folder are left out."""
    found = [log for file in run_dir.glob("wandb/*run-*/run-*.wandb") if (log := read_log(file))]
    return sorted((log for log in found if log.run_id == run_id(run_dir)), key=lambda log: log.start_time)


def read_log(file: Path) -> Log | None:
    """One log. None: there is no run to be read in it."""
    # The program itself: `wandb leet` starts it 20 times slower.
    options = ["--no-observability", "--summary", "--json", "--run-file", str(file)]
    command = [compat.wandb_core(), "leet", "inspect", *options, str(file.parent.parent)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    step = -1 if found.get("step") is None else found["step"]
    place = found.get("entity", ""), found.get("project", "")
    return Log(file, found["run_id"], found.get("start_time", ""), step, found.get("exit_code"), *place)
