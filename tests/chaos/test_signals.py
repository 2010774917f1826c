"""Signals that come early, late or for good: a checkpoint is kept, and the exit code is that of what happened."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from research.cluster.signals import STOPPED, Interrupted, StopFlag
from research.tracking.run import Run
from research.training import checkpoint
from tests.attempts import Attempt, attempt


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_signal_after_the_work_leaves_the_exit_code(number: int) -> None:
    script = "import os, sys; from research import cli; sys.argv = ['research', 'sweep', 'status']; code = cli.main()\n"
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{script}os.kill(os.getpid(), {int(number)}); sys.exit(code)"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and "needs the sweep" in done.stderr


def test_hangup_is_noted_unless_the_shell_ignores_it() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        with StopFlag() as flag:
            flag.steps_run = True
            os.kill(os.getpid(), signal.SIGHUP)
            assert flag.signal == signal.SIGHUP
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
        with StopFlag() as flag:
            os.kill(os.getpid(), signal.SIGHUP)
            assert flag.signal is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signal_in_code_that_swallows_exceptions_interrupts_after_it() -> None:
    finished = False
    with StopFlag() as flag, pytest.raises(Interrupted):
        with flag.raised_after():
            os.kill(os.getpid(), signal.SIGTERM)
            finished = True
        pytest.fail("the signal was lost")
    assert finished and flag.signal == signal.SIGTERM and not flag.steps_run


@pytest.mark.slow
@pytest.mark.process
def test_hangup_saves_a_checkpoint_and_the_run_resumes(experiments: dict[str, Path], tmp_path: Path) -> None:
    command = ["train", str(experiments["sentiment"]), f"run_dir={tmp_path / 'run'}"]
    run = Run(tmp_path / "run")
    started = Attempt(command, tmp_path / "log")
    assert started.until(lambda: len(run.metrics()) >= 4)
    started.send(signal.SIGHUP)
    assert started.wait() == STOPPED, started.output
    assert checkpoint.newest(run.checkpoints) is not None
    assert run.provenance["attempts"][0]["ended"].startswith("stopped by SIGHUP at step ")
    code, output = attempt(command, tmp_path / "log")
    assert code == 0 and "Resuming" in output


@pytest.mark.slow
@pytest.mark.process
def test_closed_terminal_loses_nothing(experiments: dict[str, Path], tmp_path: Path) -> None:
    """Its shell is gone, and each write to it fails."""
    run = Run(tmp_path / "run")
    arguments = ["-P", "-m", "research.cli", "train", str(experiments["sentiment"]), f"run_dir={run.path}"]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, *arguments])
    while not run.metrics():
        os.read(terminal, 10_000)
    os.close(terminal)  # the kernel sends SIGHUP
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == STOPPED
    assert checkpoint.newest(run.checkpoints) is not None


@pytest.mark.process
def test_removed_working_directory_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = f"import os; os.chdir({str(tmp_path / 'gone')!r}); os.rmdir({str(tmp_path / 'gone')!r})\n"
    script += "from research.cli import main; raise SystemExit(main(['train', 'a.yaml']))"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "the working directory cannot be used (No such file or directory)" in done.stderr
    assert "Traceback" not in done.stderr
