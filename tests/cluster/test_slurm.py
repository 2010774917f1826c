"""Jobs on a real SLURM end with the bits of a run that nothing interrupts, or with the sentence that says why not.

Every test drives a job of its own, four at a time, for mostly they wait; a test waits for its own. SLURM tells a job's
processes by cgroups where it may, else by ancestry; `tracked_by_ancestry` is the other way on a machine that has both.
"""

from __future__ import annotations

import copy
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from research.tracking.run import Run
from research.training import checkpoint
from tests.cluster.conftest import Project
from tests.cluster.slurm_jobs import (
    advanced,
    assert_finished,
    assert_resumes,
    cancel,
    frozen,
    nodes_of,
    requeued,
    running,
    stopped,
    straggling,
)  # fmt: skip
from tests.slurm_cluster import Cluster, Job, is_alive, is_pending, kill
from tests.training.test_resume import last_step

pytestmark = pytest.mark.slow
AT_ONCE = 4
LEAST_REQUEUES = 30  # in all, none of which may lose anything
Outcome = tuple[int, str]  # requeues after which nothing was lost, and what else is worth knowing
Scenario = Callable[[Project], Outcome]


def two_nodes(project: Project) -> Outcome:
    run, began = project.run("two_nodes"), time.monotonic()
    job = project.submit(run, "--nodes=2")
    job.until(lambda: last_step(run) >= 1)
    first_step = time.monotonic() - began
    requeues = assert_finished(job, run, project.reference(2), requeues=0)
    assert run.provenance["attempts"][0]["ranks"] == 2
    assert run.provenance["attempts"][0]["slurm"]["nodes"] == job.shown()["NodeList"]
    assert len(nodes_of(job)) == 2
    return requeues, f"{first_step:.1f} s from sbatch to the first step"


def four_ranks_on_a_node(project: Project) -> Outcome:
    """Under a job name that keeps Lightning from seeing SLURM."""
    run = project.run("four_ranks")
    job = project.submit(run, "--ntasks-per-node=4", "--job-name=interactive")
    advanced(job, run, 1, 10)
    stopped(job, 1, "--batch", "--signal=USR1")
    return assert_finished(job, run, project.reference(4), requeues=1), ""


def is_running(job: Job) -> bool:
    return job.state == "RUNNING"


def four_seeds(project: Project) -> Outcome:
    """Of an array, two tasks are requeued, one of which has the array's own id as its job's; the others continue."""
    first = project.sbatch("--array=0-3", "SLURM/array.sbatch", project.experiment, "seed=0..3")
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
    return len(chosen), f"of tasks {sorted(chosen)}; task {of_the_array} has the array's id"


def time_limit(project: Project) -> Outcome:
    """Three minutes, and USR1 one to two minutes before: twice the run waits until it comes."""
    run = project.run("time_limit")
    job = project.submit(run, "--time=3", "--job-name=bash")
    for attempt in (1, 2):
        advanced(job, run, attempt, 5)
        with frozen(job.ranks()):
            job.until(lambda: any(is_pending(pid, signal.SIGUSR1) for pid in job.ranks()))
        requeued(job, attempt)
    job.cluster.says("scontrol", "update", f"JobId={job.id}", "TimeLimit=60")  # a slow machine would meet it again
    requeues = assert_finished(job, run, project.reference(1), requeues=2)
    ends = [attempt["ended"] for attempt in run.provenance["attempts"]]
    assert [end.startswith("stopped by SIGUSR1 at step ") for end in ends] == [True, True, False]
    return requeues, ""


def preempted(project: Project, run: Run, partition: str, nodes: int) -> int:
    """A job of another partition has the right of way, and rank 1, if there is one, lags."""
    job = project.submit(run, f"--partition={partition}", f"--nodes={nodes}", "--exclusive")
    advanced(job, run, 1, 10)
    way = ("--partition=high", f"--nodelist={job.shown()['NodeList']}", "--exclusive")
    project.sbatch(*way, "--output=/dev/null", "--wrap=sleep 2")
    with straggling(job, rank=1):
        requeued(job, 1)
    return assert_finished(job, run, project.reference(nodes), requeues=1)


def preempted_at_once(project: Project) -> Outcome:
    return preempted(project, project.run("preempted_at_once"), "low0", nodes=1), ""


def preempted_after_grace(project: Project) -> Outcome:
    """TERM reaches the tasks alone, 20 s before the end: exit code 0 would mean that the run is finished."""
    return preempted(project, project.run("preempted_after_grace"), "low20", nodes=2), ""


def cancelled(project: Project) -> Outcome:
    """A cancelled job saves and does not come back; submitted again, it resumes."""
    run = project.run("cancelled")
    job = cancel(project, run)
    time.sleep(8)  # longer than a requeued job waits
    assert (job.state, job.restarts) == ("CANCELLED", 0)
    ended, step = run.provenance["attempts"][0]["ended"], last_step(run)
    assert ended == f"stopped by SIGTERM at step {step}"
    assert f"Resuming {run.path} at step {step}." in assert_resumes(project, run)
    return 0, ended


def often_signalled(project: Project, name: str = "often_signalled", requeues: int = 8) -> Outcome:
    """Stops at random moments, by signals to the tasks, or to the script, which passes it on."""
    run, rng = project.run(name), random.Random(name)
    job = project.submit(run)
    ways = (["--signal=USR1"], ["--signal=TERM"], ["--batch", "--signal=USR1"])
    for attempt in range(1, requeues + 1):
        running(job, run, attempt)
        if attempt % 4:
            advanced(job, run, attempt, rng.randrange(7))
        else:  # while it starts
            time.sleep(rng.uniform(0, 1))
        stopped(job, attempt, *ways[attempt % 3])
    assert_finished(job, run, project.reference(1), requeues)
    return requeues, f"{len(run.provenance['attempts'])} attempts came to train"


def signalled_again(project: Project) -> Outcome:
    return often_signalled(project, "signalled_again")


def straggler(project: Project) -> Outcome:
    """A rank that lags by 0.4 s: the ranks still stop at one step."""
    run, requeues = project.run("straggler"), 5
    job = project.submit(run, "--nodes=2", "--ntasks-per-node=1")
    for attempt in range(1, requeues + 1):
        advanced(job, run, attempt, 3)
        with straggling(job, rank=1):
            job.cluster.says("scancel", "--batch", "--signal=USR1", job.id)
            requeued(job, attempt)
    return assert_finished(job, run, project.reference(2), requeues), ""


def tracked_by_ancestry(project: Project) -> Outcome:
    """Where cgroups do not tell a job's processes."""
    if project.cluster.proctrack == "linuxproc":
        return 0, "as all scenarios here, for there are no cgroups"
    with Cluster("linuxproc") as cluster:
        elsewhere, requeues = copy.copy(project), 3
        elsewhere.cluster = cluster
        run = elsewhere.run("tracked_by_ancestry")
        job = elsewhere.submit(run, "--output=tracked_by_ancestry.log")
        for attempt in range(1, requeues + 1):
            advanced(job, run, attempt, 5)
            stopped(job, attempt, "--signal=USR1")
        return assert_finished(job, run, project.reference(1), requeues), ""


def lost_nodes(project: Project) -> Outcome:
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
    requeues = assert_finished(job, run, project.reference(2), requeues=2)
    first, second, _ = [attempt["ended"] for attempt in run.provenance["attempts"]]
    # Rank 0's node was up: SLURM sends rank 0 TERM, and KILL 20 s later. Rank 1, out of SLURM's reach, still answers,
    # so both stop in order if they get to the end of their step by then.
    assert first.startswith(("lost:", "stopped by SIGTERM at step ")) and second.startswith("lost:")
    return requeues, f"noticed after {' and '.join(seconds)} s"


def orphan(project: Project) -> Outcome:
    """The whole job runs on a node that crashes: the old rank holds the folder, lives on, and may not write."""
    run, said = project.run("orphan"), project.folder / "orphan.0.err"
    # What a rank says goes to slurmstepd, to srun, and into the log. The orphan's srun has ended with the old attempt,
    # and it is not seen; here slurmstepd writes to a file by itself. The new attempt names the orphan in any log.
    job = project.submit(
        run, "--partition=alone", SLURM_STDERRMODE=f"{project.folder}/orphan.%t.err", SLURM_OPEN_MODE="a"
    )
    advanced(job, run, 1, 10)
    old, node = job.ranks(), nodes_of(job)[0]
    with frozen(old):
        job.cluster.crash(node)
        requeued(job, 1)
        advanced(job, run, 2, 20)
    requeues = assert_finished(job, run, project.reference(1), requeues=1)
    deadline = time.monotonic() + 30
    while is_alive(old[0]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(old[0])
    orphaned = f"process {old[0]} on {node}, SLURM job {job.id} attempt 1, since "
    lines = said.read_text().splitlines()
    assert sum(line.startswith(f"The run folder {run.path} was held by {orphaned}") for line in lines) == 1
    refusal = f"research: The run folder {run.path} is no longer this process's own but held by process "
    assert sum(line.startswith(refusal) for line in lines) == 1
    job.cluster.start_node(node)
    return requeues, "the orphan has ended by itself"


def killed_rank(project: Project) -> Outcome:
    """`kill -9` of one rank ends the job at once; the same command resumes it."""
    run = project.run("killed_rank")
    job = project.submit(run, "--nodes=2")
    advanced(job, run, 1, 20)
    began = time.monotonic()
    kill(job.ranks()[1], signal.SIGKILL)
    assert job.wait(60) == "FAILED" and job.restarts == 0
    seconds = time.monotonic() - began
    assert "task 1: Killed" in job.said
    assert_resumes(project, run, ranks=2)
    assert run.provenance["attempts"][0]["ended"]
    return 0, f"the job ended {seconds:.1f} s after the rank"


def from_inside_a_job(project: Project) -> Outcome:
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
    requeues = assert_finished(job, run, project.reference(1), requeues=1)
    assert (outer.state, outer.restarts) == ("RUNNING", 0)
    outer.cluster.says("scancel", outer.id)
    return requeues, ""


def full_disk(project: Project) -> Outcome:
    """A checkpoint that does not fit any more ends the job; the one before serves when there is room again."""
    run = project.run("full_disk")
    cancel(project, run)
    kept = checkpoint.files(run.checkpoints)
    half = kept[0].stat().st_size // 2
    full = project.submit(run, f"--export=ALL,LARGEST_FILE_BYTES={half}")
    assert full.wait() == "FAILED" and full.restarts == 0
    reported = [line for line in full.said.splitlines() if line.startswith("research: ")]
    assert len(reported) == 1 and "could not be written" in reported[0] and str(run.checkpoints) in reported[0], (
        full.last_words
    )
    assert checkpoint.files(run.checkpoints) == kept
    assert_resumes(project, run)
    return 0, reported[0]


def two_jobs_on_a_folder(project: Project) -> Outcome:
    run = project.run("two_jobs_on_a_folder")
    first = project.submit(run)
    running(first, run, 1)
    with frozen(first.ranks()):
        second = project.submit(run)
        assert second.wait() == "FAILED" and second.restarts == 0
    lines = [line for line in second.said.splitlines() if line.startswith("research: ")]
    assert len(lines) == 1 and f"is in use by process {first.ranks()[0]} on node" in lines[0]
    assert f", SLURM job {first.id} attempt 1, since" in lines[0]
    return assert_finished(first, run, project.reference(1), requeues=0), "the second was refused"


SCENARIOS: list[Scenario] = [
    often_signalled, signalled_again, lost_nodes, orphan, time_limit, straggler, tracked_by_ancestry,
    preempted_after_grace, preempted_at_once, four_ranks_on_a_node, four_seeds, two_nodes, killed_rank, cancelled,
    from_inside_a_job, full_disk, two_jobs_on_a_folder,
]  # fmt: skip


@pytest.fixture(scope="module")
def started(project: Project, request: pytest.FixtureRequest) -> Iterator[dict[Any, Future[Outcome]]]:
    """The chosen scenarios, each in a thread."""
    chosen = [item.callspec.params["scenario"] for item in request.session.items if hasattr(item, "callspec")
              and "scenario" in item.callspec.params]  # fmt: skip
    with ThreadPoolExecutor(AT_ONCE) as threads:
        yield {scenario: threads.submit(timed, scenario, project) for scenario in chosen}


def timed(scenario: Scenario, project: Project) -> Outcome:
    began = time.monotonic()
    requeues, figures = scenario(project)
    return requeues, "; ".join(filter(None, [f"{requeues} requeues", figures, f"{time.monotonic() - began:.0f} s"]))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_job(
    scenario: Scenario, started: dict[Any, Future[Outcome]], record_property: Callable[[str, object], None]
) -> None:
    record_property(f"SLURM {scenario.__name__}", started[scenario].result(timeout=1500)[1])


def test_requeues_in_all(started: dict[Any, Future[Outcome]], record_property: Callable[[str, object], None]) -> None:
    if missing := [scenario.__name__ for scenario in SCENARIOS if scenario not in started]:
        pytest.skip(f"not chosen: {', '.join(missing)}")
    requeues = sum(outcome.result(timeout=1500)[0] for outcome in started.values())
    record_property("SLURM requeues in all", requeues)
    assert requeues >= LEAST_REQUEUES
