"""What tests do with jobs on the cluster: wait for steps, stop, freeze and slow ranks, compare runs."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from research.tracking.run import Run
from tests.cluster.conftest import EVALUATED, STEPS, Project
from tests.slurm_cluster import Job, kill
from tests.training.test_resume import assert_same, last_step


def assert_finished(job: Job, run: Run, reference: Run, requeues: int) -> int:
    """Completed, as often requeued, the same bits; and every attempt in the record with its job and its end.

    Returns the requeues.
    """
    assert job.wait() == "COMPLETED", job.last_words
    assert job.restarts == requeues
    assert_same(run, reference, STEPS, EVALUATED)
    attempts = run.provenance["attempts"]
    assert {attempt["slurm"]["job"] for attempt in attempts} == {job.shown()["JobId"]}
    numbers = [attempt["slurm"]["attempt"] for attempt in attempts]
    assert numbers == sorted(set(numbers)) and numbers[-1] == requeues + 1
    assert attempts[-1]["ended"] == "finished" and all(attempt["ended"] for attempt in attempts)
    return requeues


def assert_resumes(project: Project, run: Run, ranks: int = 1) -> str:
    """The same command, submitted once more, ends with the same bits. Returns what its job said."""
    job = project.submit(run, f"--nodes={ranks}")
    assert job.wait() == "COMPLETED", job.last_words
    assert_same(run, project.reference(ranks), STEPS, EVALUATED)
    return job.said


def running(job: Job, run: Run, attempt: int) -> None:
    """Until rank 0 of this attempt has the run folder."""
    lock, holder = run.path / ".lock", f"SLURM job {job.shown()['JobId']} attempt {attempt},"
    job.until(lambda: lock.exists() and holder in lock.read_text())


def advanced(job: Job, run: Run, attempt: int, steps: int) -> None:
    """Until this attempt has made some steps."""
    running(job, run, attempt)
    before = last_step(run)  # it may have made some already, which does no harm
    job.until(lambda: last_step(run) >= before + steps)


def requeued(job: Job, times: int) -> None:
    """Until the job is back in the queue."""
    job.until(lambda: job.restarts >= times)


def stopped(job: Job, attempt: int, *signal_options: str) -> None:
    """A signal, and back in the queue. The ranks are frozen until it is sent, or a fast machine would finish first."""
    with frozen(job.ranks()):
        job.cluster.says("scancel", *signal_options, job.id)
    requeued(job, attempt)


def cancel(project: Project, run: Run) -> Job:
    """A job that has made some steps, and was cancelled."""
    job = project.submit(run)
    advanced(job, run, 1, 20)
    job.cluster.says("scancel", job.id)
    assert job.wait() == "CANCELLED"
    return job


@contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    """Processes that are stopped."""
    for pid in pids:
        kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            kill(pid, signal.SIGCONT)


@contextmanager
def straggling(job: Job, rank: int) -> Iterator[None]:
    """A rank that repeatedly stops for 0.4 s."""
    over = threading.Event()

    def straggle() -> None:
        while not over.wait(random.uniform(0.05, 0.4)):
            with frozen(job.ranks()[rank : rank + 1]):
                time.sleep(0.4)

    thread = threading.Thread(target=straggle)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def nodes_of(job: Job) -> list[str]:
    return job.cluster.says("scontrol", "show", "hostnames", job.shown()["NodeList"]).split()
