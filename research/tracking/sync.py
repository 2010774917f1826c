"""Sends recorded runs to Weights & Biases, from a machine that has a network: again and again until W&B shows them
whole, that is, with their last step and their end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from research.common.locks import try_lock
from research.common.text import one_line
from research.config.load import completed
from research.config.schema import Config, WandbConfig
from research.tracking.run import Run
from research.tracking.wandb import Tracker
from research.tracking.wandb_files import FAILURES, Log, end_session, environment, logs_of

log = logging.getLogger("research")
TORN = "ends with an incomplete record"  # what wandb says of a log that a kill has cut off
ARRIVED = ("sent", "already sent", "nothing to send")


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
                try:
                    complete(Run.read(path))
                except FAILURES as error:
                    log.warning("The W&B record of %s could not be completed (%s).", path, one_line(error))
        with environment(Path(scratch), offline=False), ThreadPoolExecutor(max(1, workers)) as pool:
            outcomes = pool.map(lambda path: _outcome(path, timeout_seconds, attempts, live), kept)
            sent = dict(zip(kept, outcomes, strict=True))
            end_session()
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
            return not try_lock(lock, shared=True)
    except OSError:
        return False


def complete(run: Run) -> None:
    """Record for W&B what its logs lack of metrics.jsonl and result.json: rows lost to a kill, a full disk, a mirror
    that had gone silent."""
    content, parts, rows = completed(run.stored_config, str(run.path)), logs_of(run.path), run.metrics()
    config = Config(wandb=WandbConfig(**content["wandb"]))
    last_step = max((part.step for part in parts), default=-1)
    lacking = any(row["step"] > last_step for row in rows)
    ended = any(part.exit_code == 0 for part in parts)
    if config.wandb.mode == "disabled" or not (lacking or (run.result and not ended)):
        return
    config.wandb.mode = "offline"
    tracker = Tracker(run, config, content)
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
    parts = logs_of(path)
    while live and not parts and in_use(path):  # wandb keeps the first records to itself for a while
        time.sleep(0.5)
        parts = logs_of(path)
    if not parts:
        if logs := list(path.glob("wandb/*run-*")):
            return f"half-written: {logs[0].name} holds no record of this run"
        run = Run.read(path)
        mode = completed(run.stored_config, str(path))["wandb"]["mode"]
        if not (run.result or run.metrics()):
            return "nothing to send: it has not trained yet"
        if mode == "disabled":
            return "nothing to send: wandb.mode=disabled"
        return f"failed: wandb.mode={mode}, but there is no W&B log; was W&B refused its settings?"
    pending = [part for part in parts if not is_marked(part)]
    if not pending:
        return f"already sent: up to step {parts[-1].step}"
    untried = [part for part in pending if not noted(part, "syncstate").exists()]  # nothing of them was ever sent
    problem = "not tried" if untried else _missing(parts)
    for attempt in range(attempts):
        if problem is None:
            break
        time.sleep(min(attempt, 10))
        problem = _upload(pending if attempt else untried or pending, timeout_seconds, live)
        if live:  # the next attempt at the run has a log of its own
            parts = logs_of(path)
            pending = [part for part in parts if not is_marked(part)] or pending
        problem = problem or _missing(parts)
    if problem is not None:
        for part in pending:
            noted(part, "synced").unlink(missing_ok=True)
        return f"failed: {problem}"
    for part in pending:
        noted(part, "synced").touch()
    return f"sent: up to step {parts[-1].step}, {_ending(parts[-1])}"


def noted(part: Log, what: str) -> Path:
    """The file beside a log in which wandb notes that it has begun to send it (syncstate), or has sent it (synced)."""
    return part.file.with_name(f"{part.file.name}.{what}")


def is_marked(part: Log) -> bool:
    """Whether it has been sent, and not been written to since."""
    mark = noted(part, "synced")
    return mark.exists() and mark.stat().st_mtime >= part.file.stat().st_mtime


def _ending(part: Log) -> str:
    if part.exit_code is None:
        return "without an end, for the run was killed"
    return f"ended with exit code {part.exit_code}"


def _upload(pending: list[Log], timeout_seconds: float, live: bool) -> str | None:
    """One call of `wandb sync`; what went wrong, or None. A run that still writes has all the time it takes."""
    which = ["beta", "sync", "--live", "--no-skip-online"] if live else ["sync", "--include-online", "--include-synced"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "wandb", *which, *[str(part.file) for part in pending]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env={**os.environ, "WANDB_SILENT": "false"},
        start_new_session=True,
    )
    said = None
    while said is None:
        writes = live and in_use(pending[0].file.parents[2])
        try:
            said, _ = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            if writes:
                continue
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return f"W&B did not take it within {timeout_seconds:g} s"
    unsent = [part for part in pending if not is_marked(part)]
    if unsent and unsent[0].exit_code is None and TORN in said:
        noted(unsent[0], "synced").touch()  # what the log holds has arrived; wandb stops at it
        unsent = unsent[1:]
        return _upload(unsent, timeout_seconds, live) if unsent else None
    if not unsent:
        return None
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line] or lines or ["wandb sync said nothing"]
    return errors[-1].removeprefix("wandb: ").removeprefix("ERROR ")


def _missing(parts: list[Log]) -> str | None:
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
