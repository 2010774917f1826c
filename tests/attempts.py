"""Attempts at a command, each in a process of its own, forked from one that has the heavy imports behind it."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path

from research.cluster.launch import environments

HEAVY = [
    "research.sweep.worker", "research.training.run", "research.data.arrow", "research.tasks.classification",
    "research.tasks.ner", "research.tasks.extractive_qa", "transformers.models.bert.modeling_bert",
]  # fmt: skip


def prepare(data_cache: Path) -> None:
    """Start the process that all attempts are forked from; they keep their encoded data in `data_cache`."""
    before = os.environ.get("HF_DATASETS_CACHE")
    os.environ["HF_DATASETS_CACHE"] = str(data_cache)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    forkserver.ensure_running()
    del os.environ["HF_DATASETS_CACHE"]
    if before is not None:
        os.environ["HF_DATASETS_CACHE"] = before


def _main(arguments: Sequence[str], log: str, environment: Mapping[str, str], largest_file: int | None) -> None:
    """The process: `research` with these arguments, its output in a file, at the head of its own process group."""
    os.setpgid(0, 0)
    multiprocessing.set_start_method(None, force=True)  # as in a process started by hand
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["research", *arguments]
    from research.cli import main

    sys.exit(main(arguments))


class Attempt:
    """A running command. Its output is appended to `log`; no file it writes grows beyond `largest_file` bytes."""

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        largest_file: int | None = None,
    ) -> None:
        self.log, self.said_before = log, log.stat().st_size if log.exists() else 0
        given = (list(arguments), str(log), dict(environment or {}), largest_file)
        self.process = multiprocessing.get_context("forkserver").Process(target=_main, args=given)
        self.process.start()

    @property
    def output(self) -> str:
        """What this attempt has said so far."""
        return self.log.read_bytes()[self.said_before :].decode() if self.log.exists() else ""

    def until(self, holds: Callable[[], bool], poll_seconds: float = 0.005, timeout_seconds: float = 120.0) -> bool:
        """Wait for a moment; False when the process ended without it."""
        deadline = time.monotonic() + timeout_seconds
        while not holds():
            if not self.process.is_alive():
                return holds()
            assert time.monotonic() < deadline, f"waited in vain: {self.output}"
            time.sleep(poll_seconds)
        return True

    def send(self, number: int) -> None:
        """Send a signal to the main process alone."""
        os.kill(self.process.pid or 0, number)

    def kill(self) -> None:
        """`kill -9` the main process alone, and return as soon as it is gone."""
        self.send(signal.SIGKILL)
        while Path(f"/proc/{self.process.pid}").exists():
            time.sleep(0.001)

    def wait(self, timeout_seconds: float = 120.0) -> int:
        """Its exit code; minus the signal's number where one has killed it."""
        self.process.join(timeout_seconds)
        assert self.process.exitcode is not None, f"still running: {self.output}"
        return self.process.exitcode


def attempt(arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a command to its end. Returns its exit code and what it said."""
    started = Attempt(arguments, log, environment)
    return started.wait(), started.output


def attempt_ranks(arguments: Sequence[str], count: int, log: Path, timeout_seconds: float = 300.0) -> tuple[int, str]:
    """Run a command as `count` ranks, which talk by gloo, in the environment that the command gives those it starts.

    Returns the exit code of the first that failed, else 0, and what they said. The others are killed then.
    """
    ranks = [Attempt(arguments, log, environment) for environment in environments(count)]
    deadline = time.monotonic() + timeout_seconds
    while any(rank.process.is_alive() for rank in ranks) and time.monotonic() < deadline:
        if any(rank.process.exitcode for rank in ranks):
            break
        time.sleep(0.02)
    codes = [rank.process.exitcode for rank in ranks]
    for rank in ranks:
        rank.process.kill()
        rank.process.join()
    output = ranks[0].output
    assert any(codes) or None not in codes, f"still running after {timeout_seconds} s: {output}"
    return next((code for code in codes if code), 0), output
