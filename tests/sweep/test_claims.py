"""One worker a trial: who wins, who is dead, who was only slow."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from research.sweep import claims as module
from research.sweep.claims import Claim, Claims, newest


def claims_in(folder: Path, **options: Any) -> Claims:
    return Claims(folder, **{"heartbeat_seconds": 0.02, "dead_after_seconds": 0.3, **options})


def elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Claims:
    """The claims as another machine sees them: its kernel does not know our locks."""
    with monkeypatch.context() as patched:
        patched.setattr(module, "_boot_id", lambda: "another kernel")
        return claims_in(folder, **options)


def _hold(folder: str, number: int, ready: Any) -> None:
    claim = claims_in(Path(folder)).take(number)
    ready.send(claim is not None)
    time.sleep(60)


def holder(folder: Path, number: int) -> multiprocessing.Process:
    """A process that holds a claim."""
    context: Any = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_hold, args=(str(folder), number, there), daemon=True)
    process.start()
    assert here.recv()
    return process


@pytest.mark.slow
def test_one_wins(tmp_path: Path) -> None:
    many = [claims_in(tmp_path) for _ in range(8)]
    for number in range(20):
        start = threading.Barrier(8)

        def take(claims: Claims, number: int = number, start: threading.Barrier = start) -> Claim | None:
            start.wait()
            return claims.take(number)

        with ThreadPoolExecutor(8) as pool:
            won = [claim for claim in pool.map(take, many) if claim is not None]
        assert len(won) == 1 and won[0].number == number
        assert not list((tmp_path / f"{number:04d}").glob(".claim*"))
        won[0].end()


def test_a_held_claim_is_alive_and_cannot_be_taken(tmp_path: Path) -> None:
    mine = claims_in(tmp_path)
    claim = mine.take(3)
    assert claim is not None and claim.path == tmp_path / "0003" / "claim-1"
    other = claims_in(tmp_path)
    assert other.take(3) is None and other.is_alive(3) and not other.is_alive(4)
    header = json.loads(claim.path.read_text().splitlines()[0])
    assert header["process"] == os.getpid() and header["progress"] == ""
    time.sleep(0.1)
    assert claim.path.read_text().splitlines()[1].strip(".") == "" and len(claim.path.read_text().splitlines()[1]) >= 2
    claim.end()


def test_a_killed_process_is_known_to_be_dead_at_once(tmp_path: Path) -> None:
    process = holder(tmp_path, 0)
    claims = claims_in(tmp_path, dead_after_seconds=1e6)
    assert claims.take(0) is None and claims.is_alive(0)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert not claims.is_alive(0)
    claim = claims.take(0)
    assert claim is not None and claim.path.name == "claim-2"
    claim.end()


@pytest.mark.slow
def test_a_stopped_process_of_this_machine_is_not_dead(tmp_path: Path) -> None:
    process = holder(tmp_path, 0)
    os.kill(process.pid or 0, signal.SIGSTOP)
    claims = claims_in(tmp_path)
    time.sleep(0.5)
    assert claims.take(0) is None and claims.is_alive(0)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()


def test_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = claims_in(tmp_path).take(0)
    assert claim is not None
    claim.give_back()
    far = elsewhere(tmp_path, monkeypatch, dead_after_seconds=1e6)
    assert not far.is_alive(0)
    second = far.take(0)
    assert second is not None and second.path.name == "claim-2"
    second.end()


@pytest.mark.slow
def test_on_another_machine_silence_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = claims_in(tmp_path).take(0)
    assert claim is not None
    far = elsewhere(tmp_path, monkeypatch, dead_after_seconds=0.5)
    assert far.take(0) is None and not far.is_alive(0)  # not known yet
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        assert far.take(0) is None
        time.sleep(0.02)
    assert far.is_alive(0)
    claim.end()  # and falls silent without being given back, as when its machine dies
    began = time.monotonic()
    while (taken := far.take(0)) is None:
        assert time.monotonic() < began + 60
        time.sleep(0.02)
    assert time.monotonic() - began >= 0.4 and taken.path.name == "claim-2"
    taken.end()


@pytest.mark.slow
def test_a_worker_taken_for_dead_learns_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[Claim] = []
    slow = claims_in(tmp_path, heartbeat_seconds=0.5, lost=lost.append).take(0)
    assert slow is not None
    far = elsewhere(tmp_path, monkeypatch, dead_after_seconds=0.1)
    assert far.take(0) is None
    time.sleep(0.2)
    taken = far.take(0)
    assert taken is not None and slow.is_superseded() and newest(tmp_path / "0000") == taken.path
    deadline = time.monotonic() + 60
    while not lost and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lost == [slow]
    taken.end()
    slow.end()


@pytest.mark.slow
def test_a_process_that_was_taken_for_dead_ends_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = holder(tmp_path, 0)
    os.kill(process.pid or 0, signal.SIGSTOP)
    far = elsewhere(tmp_path, monkeypatch)
    while (taken := far.take(0)) is None:
        time.sleep(0.05)
    os.kill(process.pid or 0, signal.SIGCONT)
    process.join(60)
    assert process.exitcode == 75
    taken.end()


@pytest.mark.slow
def test_without_locks_heartbeats_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(module, "_lock", lambda descriptor: False)
        claim = claims_in(tmp_path).take(0)
    assert claim is not None
    other = claims_in(tmp_path)
    assert other.take(0) is None
    time.sleep(0.1)
    assert other.take(0) is None and other.is_alive(0)
    claim.end()
    began = time.monotonic()
    while (taken := other.take(0)) is None:
        assert time.monotonic() < began + 60
        time.sleep(0.02)
    assert time.monotonic() - began >= 0.2
    taken.end()


def test_no_heartbeat_follows_the_mark_of_a_claim_given_back(tmp_path: Path) -> None:
    claims = Claims(tmp_path, 1e-4, 1000.0)
    for _ in range(30):
        claim = claims.take(0)
        assert claim is not None
        claim.give_back()
        assert claim.path.read_bytes().endswith(b"\nreleased\n")


def test_deaths_are_counted_since_the_last_step_ahead(tmp_path: Path) -> None:
    claims = claims_in(tmp_path)
    for progress in ("", "step-3", "step-3", "step-3"):
        claim = claims.take(0, lambda number, progress=progress: progress)  # type: ignore[misc]
        assert claim is not None
        claim.end()
    assert claims.deaths(0, "step-3") == 3 and claims.deaths(0, "step-9") == 0
    claim = claims.take(0, lambda number: "step-3")
    assert claim is not None
    claim.give_back()
    assert claims.deaths(0, "step-3") == 0
