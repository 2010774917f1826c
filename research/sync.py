"""Sends recorded runs to Weights & Biases, from a machine that has a network: again and again until W&B shows them
whole, that is, with their last step and their end."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research.run import Run
from research.tracking import FAILURES, Tracker, environment, one_line, read_log, run_id

ARRIVED = ("sent", "already sent", "nothing to send")


@dataclass
class Part:
    """The log that one attempt of a run has left."""

    file: Path
    run_id: str
    step: int
    exit_code: int | None  # None: it was killed, or is still being written
    entity: str
    project: str

    @property
    def mark(self) -> Path:
        """Where wandb, and we, note that it has arrived."""
        return self.file.with_name(self.file.name + ".synced")

    @property
    def begun(self) -> bool:
        """Something of it has reached W&B."""
        return self.file.with_name(self.file.name + ".syncstate").exists()


def sync(
    run_paths: Sequence[Path], *, timeout_seconds: float, attempts: int, workers: int, live: bool = False
) -> dict[Path, str]:
    """Send each run folder, `workers` at a time, in at most `attempts` uploads of `timeout_seconds` each.

    What happened is said in a sentence that begins with `sent`, `already sent`, `nothing to send`, `still running`,
    `deleted`, `foreign`, `half-written` or `failed`. With `live` a run that is still writing is followed to its end.
    """
    refused = {path: reason for path in run_paths if (reason := _refusal(path, live))}
    kept = [path for path in run_paths if path not in refused]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        for path in kept:
            if not in_use(path):
                with suppress(*FAILURES):
                    complete(Run.read(path))
        with environment(Path(scratch), offline=False), ThreadPoolExecutor(max(1, workers)) as pool:
            outcomes = pool.map(lambda path: _outcome(path, timeout_seconds, attempts, live), kept)
            sent = dict(zip(kept, outcomes, strict=True))
    return {path: refused.get(path) or sent[path] for path in run_paths}


def has_arrived(outcome: str) -> bool:
    """Whether nothing is left to do for a run with this outcome of `sync`."""
    return outcome.startswith(ARRIVED)


def _refusal(path: Path, live: bool) -> str | None:
    if not path.is_dir():
        return "deleted: there is no such folder"
    if not (path / "config.yaml").is_file():
        return "foreign: it is not a run folder, for it has no config.yaml"
    if not live and in_use(path):
        return "still running: sync it when it has ended, or live"
    return None


def in_use(path: Path) -> bool:
    """Whether a process is training in this run folder."""
    try:
        with open(path / ".lock", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def parts_of(path: Path) -> list[Part]:
    """The readable logs of this run, oldest first; those of another run in its folder are left out."""
    parts = {}
    for file in path.glob("wandb/*run-*/run-*.wandb"):
        found = read_log(file)
        if found and found.get("run_id") == run_id(path):
            step = -1 if found["step"] is None else found["step"]
            place = found.get("entity", ""), found.get("project", "")
            parts[found["start_time"]] = Part(file, found["run_id"], step, found["exit_code"], *place)
    return [parts[start] for start in sorted(parts)]


def complete(run: Run) -> None:
    """Record for W&B what its logs lack of metrics.jsonl and result.json: rows lost to a kill, a full disk, a mirror
    that had gone silent."""
    config, parts, rows = run.config, parts_of(run.path), run.metrics()
    last_step = max((part.step for part in parts), default=-1)
    lacking = any(row["step"] > last_step for row in rows)
    ended = any(part.exit_code == 0 for part in parts)
    if config.wandb.mode == "disabled" or not (lacking or (run.result and not ended)):
        return
    config.wandb.mode, config.wandb.tensorboard = "offline", False
    tracker = Tracker(run, config)
    for row in (row for row in rows if row["step"] >= last_step):
        tracker.log(row["step"], {key: value for key, value in row.items() if key != "step"})
    table = next((p for name in ("test", "validation") if (p := run.predictions / f"{name}.parquet").is_file()), None)
    tracker.finish(run.result or {}, run.provenance, table if run.result else None, 0 if run.result else 1)


def _outcome(path: Path, timeout_seconds: float, attempts: int, live: bool) -> str:
    try:
        return _send_until_whole(path, timeout_seconds, attempts, live)
    except FAILURES as error:
        return f"failed: {one_line(error)}"


def _send_until_whole(path: Path, timeout_seconds: float, attempts: int, live: bool) -> str:
    parts = parts_of(path)
    if not parts:
        logs = list(path.glob("wandb/*run-*"))
        return f"half-written: {logs[0].name} holds no record of this run" if logs else "nothing to send: no W&B log"
    pending = [p for p in parts if not p.mark.exists() or p.mark.stat().st_mtime < p.file.stat().st_mtime]
    if not pending:
        return f"already sent: up to step {parts[-1].step}"
    problem = None if all(part.begun for part in pending) else "not tried"
    problem = problem or _missing(parts)
    for attempt in range(attempts):
        if problem is None:
            break
        time.sleep(min(attempt, 10))
        problem = _upload(pending, timeout_seconds, live)
        if live:
            parts = parts_of(path)
        problem = problem or _missing(parts)
    if problem is not None:
        for part in pending:
            part.mark.unlink(missing_ok=True)
        return f"failed: {problem}"
    for part in pending:
        part.mark.touch()
    return f"sent: up to step {parts[-1].step}, {_ending(parts[-1])}"


def _ending(part: Part) -> str:
    if part.exit_code is None:
        return "without an end, for the run was killed"
    return f"ended with exit code {part.exit_code}"


def _upload(pending: list[Part], timeout_seconds: float, live: bool) -> str | None:
    """One call of `wandb sync`; what went wrong, or None."""
    which = ["beta", "sync", "--live", "--no-skip-online"] if live else ["sync", "--include-online", "--include-synced"]
    process = subprocess.Popen(
        [sys.executable, "-m", "wandb", *which, *[str(part.file) for part in pending]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env={**os.environ, "WANDB_SILENT": "false"},
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"W&B did not take it within {timeout_seconds:g} s"
    if all(part.mark.exists() for part in pending):
        return None
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line] or lines or ["wandb sync said nothing"]
    return errors[-1].removeprefix("wandb: ").removeprefix("ERROR ")


def _missing(parts: list[Part]) -> str | None:
    """What W&B itself lacks of these logs, None when it shows the last step and the end."""
    import wandb

    last, step = parts[-1], max(part.step for part in parts)
    name = "/".join(filter(None, [last.entity, last.project, last.run_id]))
    try:
        shown: Any = wandb.Api(timeout=30).run(name)
        shown_step = max(shown.lastHistoryStep, shown.summary.get("_step", -1))
    except FAILURES as error:
        return f"W&B does not show it ({one_line(error)})"
    if shown_step < step:
        return f"W&B shows it up to step {shown_step} of {step}"
    if last.exit_code is not None and (shown.state == "finished") != (last.exit_code == 0):
        return f"W&B shows it as {shown.state}, but it ended with exit code {last.exit_code}"
    return None
