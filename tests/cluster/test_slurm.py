"""Jobs on a real SLURM end with the bits of a run that nothing interrupts, or with the sentence that says why not.

Every test drives a job of its own. They are all started at once, for mostly they wait; a test waits for its own.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from research.model import checkpoint
from research.run import Run
from tests.cluster.conftest import EVALUATED, STEPS, Project
from tests.slurm_cluster import Job, is_alive, is_pending, kill
from tests.test_resume import content, last_step

pytestmark = pytest.mark.slow
AT_ONCE = 4
Scenario = Callable[[Project], str]


def assert_same(run: Run, reference: Run) -> None:
    found, expected = content(run), content(reference)
    for part in ("result", "metrics", "predictions", "weights"):
        assert found[part] == expected[part], part
    rows = found["metrics"]
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, STEPS + 1))
    assert [row["step"] for row in rows if "validation/loss" in row] == EVALUATED


def assert_finished(job: Job, run: Run, reference: Run, requeues: int) -> None:
    """Completed, as often requeued, the same bits; and every attempt in the record with its job and its end."""
    assert job.wait() == "COMPLETED", job.said
    assert job.restarts == requeues
    assert_same(run, reference)
    attempts = run.provenance["attempts"]
    assert {attempt["slurm"]["job"] for attempt in attempts} == {job.shown()["JobId"]}
    numbers = [attempt["slurm"]["attempt"] for attempt in attempts]
    assert numbers == sorted(set(numbers)) and numbers[-1] == requeues + 1
    assert attempts[-1]["ended"] == "finished" and all(attempt["ended"] for attempt in attempts)


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
    """A signal, and back in the queue. The ranks stand still until it is sent, or a fast machine would finish first."""
    with frozen(job.ranks()):
        job.cluster.says("scancel", *signal_options, job.id)
    requeued(job, attempt)


@contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    """Processes that stand still."""
    for pid in pids:
        kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            kill(pid, signal.SIGCONT)


@contextmanager
def straggling(job: Job, rank: int) -> Iterator[None]:
    """A rank that again and again stands still for 0.4 s."""
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


# --- scenarios: each returns its figures


def two_nodes(project: Project) -> str:
    run, began = project.run("two_nodes"), time.monotonic()
    job = project.submit(run, "--nodes=2")
    job.until(lambda: last_step(run) >= 1)
    first_step = time.monotonic() - began
    assert_finished(job, run, project.reference(2), requeues=0)
    assert run.provenance["attempts"][0]["ranks"] == 2
    assert run.provenance["attempts"][0]["slurm"]["nodes"] == "node[1-2]"
    return f"{first_step:.1f} s from sbatch to the first step"


def four_ranks_on_a_node(project: Project) -> str:
    """Under a job name that keeps Lightning from seeing SLURM."""
    run = project.run("four_ranks")
    job = project.submit(run, "--ntasks-per-node=4", "--job-name=interactive")
    advanced(job, run, 1, 10)
    stopped(job, 1, "--batch", "--signal=USR1")
    assert_finished(job, run, project.reference(4), requeues=1)
    return "1 requeue"


def is_running(job: Job) -> bool:
    return job.state == "RUNNING"


def four_seeds(project: Project) -> str:
    """Of an array, two tasks are requeued, one of which has the array's own id as its job's; the others go on."""
    first = project.sbatch("--array=0-3", "SLURM/seeds.sbatch", project.experiment)
    jobs = [project.job(f"{first.id}_{seed}") for seed in range(4)]
    for job in jobs:  # until it starts, a task has the array's id
        job.until(partial(is_running, job))
    runs = [Run(project.folder / "runs" / "reviews" / f"seed{seed}") for seed in range(4)]
    of_the_array = next(seed for seed, job in enumerate(jobs) if job.shown()["JobId"] == first.id)
    chosen = {of_the_array, (of_the_array + 1) % 4}

    def interrupt(seed: int) -> None:
        advanced(jobs[seed], runs[seed], 1, 5)
        stopped(jobs[seed], 1, "--signal=USR1")

    with ThreadPoolExecutor(2) as threads:  # one after the other, the second would have finished
        list(threads.map(interrupt, chosen))
    for seed in range(4):
        reference = project.reference(1, f"seed={seed}")
        assert_finished(jobs[seed], runs[seed], reference, requeues=int(seed in chosen))
    return f"2 requeues, of tasks {sorted(chosen)}; task {of_the_array} has the array's id"


def time_limit(project: Project) -> str:
    """Three minutes, and USR1 one to two minutes before: twice the run stands still until it comes."""
    run = project.run("time_limit")
    job = project.submit(run, "--time=3", "--job-name=bash")
    for attempt in (1, 2):
        advanced(job, run, attempt, 5)
        with frozen(job.ranks()):
            job.until(lambda: any(is_pending(pid, signal.SIGUSR1) for pid in job.ranks()))
        requeued(job, attempt)
    assert_finished(job, run, project.reference(1), requeues=2)
    ends = [attempt["ended"] for attempt in run.provenance["attempts"]]
    assert [end.startswith("stopped by SIGUSR1 at step ") for end in ends] == [True, True, False]
    return "2 requeues"


def preempt(project: Project, nodes: str) -> None:
    """A job that has the right of way on some nodes."""
    project.sbatch("--partition=high", f"--nodelist={nodes}", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")


def preempted_at_once(project: Project) -> str:
    run = project.run("preempted_at_once")
    job = project.submit(run, "--partition=low0", "--exclusive")
    advanced(job, run, 1, 10)
    preempt(project, "node7")
    requeued(job, 1)
    assert_finished(job, run, project.reference(1), requeues=1)
    return "1 requeue"


def preempted_after_grace(project: Project) -> str:
    """TERM comes to the tasks alone, 20 s before the end: to exit with 0 would be to be done."""
    run = project.run("preempted_after_grace")
    job = project.submit(run, "--partition=low20", "--nodes=2", "--exclusive")
    advanced(job, run, 1, 10)
    preempt(project, "node[8-9]")
    with straggling(job, rank=1):
        requeued(job, 1)
    assert_finished(job, run, project.reference(2), requeues=1)
    return "1 requeue"


def cancelled(project: Project) -> str:
    """A cancelled job saves and does not come back; submitted again, it goes on."""
    run = project.run("cancelled")
    job = project.submit(run)
    advanced(job, run, 1, 20)
    job.cluster.says("scancel", job.id)
    assert job.wait() == "CANCELLED"
    time.sleep(8)  # longer than a requeued job waits
    assert (job.state, job.restarts) == ("CANCELLED", 0)
    ended, step = run.provenance["attempts"][0]["ended"], last_step(run)
    assert ended == f"stopped by SIGTERM at step {step}"
    again = project.submit(run)
    assert again.wait() == "COMPLETED" and f"Resuming {run.path} at step {step}." in again.said, again.said
    assert_same(run, project.reference(1))
    return ended


def often_signalled(project: Project) -> str:
    """Fourteen stops at random moments, by signals to the tasks, or to the script, which passes it on."""
    run, rng, requeues = project.run("often_signalled"), random.Random(0), 14
    job = project.submit(run, overrides=("data.num_workers=2",))
    ways = (["--signal=USR1"], ["--signal=TERM"], ["--batch", "--signal=USR1"])
    for attempt in range(1, requeues + 1):
        running(job, run, attempt)
        if attempt % 4:
            advanced(job, run, attempt, rng.randrange(7))
        else:  # while it starts
            time.sleep(rng.uniform(0, 1))
        stopped(job, attempt, *ways[attempt % 3])
    assert_finished(job, run, project.reference(1), requeues)
    return f"{requeues} requeues, {len(run.provenance['attempts'])} attempts that came to train"


def straggler(project: Project) -> str:
    """A rank that lags by 0.4 s, and loader workers: the ranks still stop at one step."""
    run, requeues = project.run("straggler"), 5
    job = project.submit(run, "--nodes=2", "--ntasks-per-node=1", overrides=("data.num_workers=2",))
    for attempt in range(1, requeues + 1):
        advanced(job, run, attempt, 3)
        with straggling(job, rank=1):
            job.cluster.says("scancel", "--batch", "--signal=USR1", job.id)
            requeued(job, attempt)
    assert_finished(job, run, project.reference(2), requeues)
    return f"{requeues} requeues"


def lost_nodes(project: Project) -> str:
    """The slurmd of rank 1's node dies, then the power of rank 0's fails."""
    run = project.run("lost_nodes")
    job = project.submit(run, "--partition=frail", "--nodes=2")
    cluster, seconds = job.cluster, []
    for attempt, (rank, lose) in enumerate([(1, cluster.crash), (0, cluster.cut_power)], 1):
        advanced(job, run, attempt, 10)
        node, began = nodes_of(job)[rank], time.monotonic()
        with frozen(job.ranks()):  # or it would be finished before SLURM misses the node
            lose(node)
            requeued(job, attempt)
        seconds.append(f"{time.monotonic() - began:.0f}")
        running(job, run, attempt + 1)
        cluster.start_node(node)
    assert_finished(job, run, project.reference(2), requeues=2)
    first, second, _ = [attempt["ended"] for attempt in run.provenance["attempts"]]
    assert first.startswith(("lost:", "stopped by SIGTERM")) and second.startswith("lost:")  # rank 0's node was up
    return f"2 requeues, noticed after {' and '.join(seconds)} s"


def nodes_of(job: Job) -> list[str]:
    return job.cluster.says("scontrol", "show", "hostnames", job.shown()["NodeList"]).split()


def orphan(project: Project) -> str:
    """The whole job runs on a node that crashes: the old rank holds the folder, lives on, and may not write."""
    run = project.run("orphan")
    job = project.submit(run, "--partition=alone")
    advanced(job, run, 1, 10)
    old, node = job.ranks(), nodes_of(job)[0]
    with frozen(old):
        job.cluster.crash(node)
        requeued(job, 1)
        advanced(job, run, 2, 20)
    assert_finished(job, run, project.reference(1), requeues=1)
    deadline = time.monotonic() + 30
    while is_alive(old[0]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(old[0])
    job.cluster.start_node(node)
    return "1 requeue; the orphan has ended by itself"


def killed_rank(project: Project) -> str:
    """`kill -9` of one rank ends the job at once; the same command goes on."""
    run = project.run("killed_rank")
    job = project.submit(run, "--nodes=2")
    advanced(job, run, 1, 20)
    began = time.monotonic()
    kill(job.ranks()[1], signal.SIGKILL)
    assert job.wait(60) == "FAILED" and job.restarts == 0
    seconds = time.monotonic() - began
    assert "task 1: Killed" in job.said
    again = project.submit(run, "--nodes=2")
    assert again.wait() == "COMPLETED", again.said
    assert_same(run, project.reference(2))
    assert run.provenance["attempts"][0]["ended"]
    return f"the job ended {seconds:.1f} s after the rank"


def from_inside_a_job(project: Project) -> str:
    """Submitted by a rank of an array's task, which has a restart behind it: the new job requeues itself, not that."""
    run = project.run("from_inside_a_job")
    arguments = " ".join(project.arguments(run))
    inner = f"sbatch --parsable --cpus-per-task=1 SLURM/train.sbatch {arguments} >inner.id"
    outer = project.sbatch(
        "--array=5", "--ntasks=2", "--output=outer.log",
        f"--wrap=srun bash -c '[ $SLURM_PROCID = 1 ] || {inner}'; sleep 30000",
    )  # fmt: skip
    number = project.folder / "inner.id"
    outer.until(lambda: number.exists() and number.read_text().endswith("\n"))
    job = project.job(number.read_text().strip())
    advanced(job, run, 1, 10)
    stopped(job, 1, "--signal=USR1")
    assert_finished(job, run, project.reference(1), requeues=1)
    assert (outer.state, outer.restarts) == ("RUNNING", 0)
    outer.cluster.says("scancel", outer.id)
    return "1 requeue"


def full_disk(project: Project) -> str:
    """A checkpoint that does not fit any more ends the job; the one before serves when there is room again."""
    run = project.run("full_disk")
    first = project.submit(run)
    advanced(first, run, 1, 20)
    first.cluster.says("scancel", first.id)
    assert first.wait() == "CANCELLED"
    kept = checkpoint.files(run.checkpoints)
    half = kept[0].stat().st_size // 2
    full = project.submit(run, f"--export=ALL,LARGEST_FILE_BYTES={half}")
    assert full.wait() == "FAILED" and full.restarts == 0
    told = [line for line in full.said.splitlines() if line.startswith("research: ")]
    assert len(told) == 1 and "could not be written" in told[0] and str(run.checkpoints) in told[0], full.said
    assert checkpoint.files(run.checkpoints) == kept
    again = project.submit(run)
    assert again.wait() == "COMPLETED", again.said
    assert_same(run, project.reference(1))
    return told[0]


def two_jobs_on_a_folder(project: Project) -> str:
    run = project.run("two_jobs_on_a_folder")
    first = project.submit(run)
    running(first, run, 1)
    with frozen(first.ranks()):
        second = project.submit(run)
        assert second.wait() == "FAILED" and second.restarts == 0
    lines = [line for line in second.said.splitlines() if line.startswith("research: ")]
    assert len(lines) == 1 and f"is in use by process {first.ranks()[0]} on node" in lines[0]
    assert f", SLURM job {first.id} attempt 1, since" in lines[0]
    assert_finished(first, run, project.reference(1), requeues=0)
    return "the second was refused"


SCENARIOS: list[Scenario] = [
    often_signalled, lost_nodes, orphan, time_limit, straggler, preempted_after_grace, preempted_at_once,
    four_ranks_on_a_node, four_seeds, two_nodes, killed_rank, cancelled, from_inside_a_job, full_disk,
    two_jobs_on_a_folder,
]  # fmt: skip


@pytest.fixture(scope="module")
def started(project: Project, request: pytest.FixtureRequest) -> Iterator[dict[Any, Future[str]]]:
    """The chosen scenarios, each in a thread."""
    chosen = [item.callspec.params["scenario"] for item in request.session.items if hasattr(item, "callspec")
              and "scenario" in item.callspec.params]  # fmt: skip
    with ThreadPoolExecutor(AT_ONCE) as threads:
        yield {scenario: threads.submit(timed, scenario, project) for scenario in chosen}


def timed(scenario: Scenario, project: Project) -> str:
    began = time.monotonic()
    return f"{scenario(project)}; {time.monotonic() - began:.0f} s"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_job(scenario: Scenario, started: dict[Any, Future[str]], figures: dict[str, str]) -> None:
    figures[scenario.__name__] = started[scenario].result(timeout=900)
