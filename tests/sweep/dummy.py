"""Workers of a search whose trials train nothing: the real study, claims and storage around a cheap objective.

A trial "trains" for STEPS steps; each is appended to a trace in the trial's folder with the process that made it, and
every third is a checkpoint that a worker who continues the trial starts from.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from research.cluster.signals import StopFlag
from research.config.component import choose
from research.config.schema import Config
from research.metrics.score import Score
from research.sweep.space import suggest
from research.sweep.study import Search, open_search
from research.sweep.sweepfile import (
    BudgetConfig,
    Parameter,
    SamplerConfig,
    StorageConfig,
    SweepConfig,
    trial_folder,
)

STEPS = 12
ACCURACY = Score("accuracy", "accuracy")


def sweep_in(folder: Path, trials: int | None = 12, url: str | None = None, **keys: Any) -> SweepConfig:
    storage = StorageConfig(
        url=url or str(folder / "journal.log"), wait_seconds=20, lock_seconds=3, heartbeat_seconds=0.2,
        dead_after_seconds=2.0,
    )  # fmt: skip
    space = {"optim.lr": Parameter(low=1e-5, high=1e-3, log=True), "optim.warmup_ratio": Parameter(low=0.0, high=0.3)}
    settings: dict[str, Any] = {
        "experiment": "e.yaml", "name": "dummy", "folder": str(folder), "space": space, "storage": storage,
        "sampler": SamplerConfig(name="random", seed=3), "budget": BudgetConfig(trials=trials),
    }  # fmt: skip
    return SweepConfig(**{**settings, **keys})


def base() -> Config:
    config = Config(task=choose("task", "sentiment"))
    config.model.name, config.data.train, config.data.validation = "a/b", "train", "validation"
    return config


def score(values: Mapping[str, Any], step: int) -> float:
    return round(values["optim.lr"] * 100 + values["optim.warmup_ratio"] * step, 9)


def work(sweep: SweepConfig, step_seconds: float = 0.0) -> None:
    """Take trials until none is left."""
    with StopFlag() as flag:
        flag.steps_run = True
        search = open_search(sweep, base(), ACCURACY, False, flag)
        while (taken := search.next()) is not None:
            run(search, *taken, step_seconds)


def run(search: Search, trial: Any, claim: Any, step_seconds: float) -> None:
    values = search.patience(lambda: suggest(search.sweep.space, trial))
    folder = trial_folder(search.sweep, trial.number)
    checkpoint = folder / "checkpoint"
    begin = int(checkpoint.read_text()) if checkpoint.exists() else 0
    reported = search.trials()[trial.number].intermediate_values
    for step in range(begin + 1, STEPS + 1):
        append(folder / "trace", {"process": os.getpid(), "step": step})
        append(search.folder / f"steps.{os.getpid()}", step)
        time.sleep(step_seconds)
        if step % 3 == 0:
            if step not in reported:
                search.report(trial, score(values, step), step)
            temporary = checkpoint.with_suffix(f".{os.getpid()}")
            temporary.write_text(str(step))
            os.replace(temporary, checkpoint)
    search.finish(trial, claim, TrialState.COMPLETE, score(values, STEPS))


def append(path: Path, row: Any) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def count(path: Path) -> int:
    """Lines of a file that may not be there yet."""
    return path.read_text().count("\n") if path.exists() else 0


def start(sweep: SweepConfig, step_seconds: float = 0.0) -> Any:
    """A worker as a process of its own, forked from one that has the imports behind it."""
    process: Any = multiprocessing.get_context("forkserver").Process(target=work, args=(sweep, step_seconds))
    process.start()
    return process


def outcomes(search: Search) -> list[tuple[int, str, Any, Any, Any]]:
    """What must not depend on who died when."""
    return [(t.number, t.state.name, t.params, t.value, t.intermediate_values) for t in search.trials()]


def assert_one_worker_at_a_time(sweep: SweepConfig, trials: int) -> int:
    """Each trial's trace goes from worker to worker without ever coming back. Returns how often one took over."""
    handovers = 0
    for number in range(trials):
        lines = (trial_folder(sweep, number) / "trace").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        owners = [row["process"] for row in rows]
        changes = [i for i in range(1, len(owners)) if owners[i] != owners[i - 1]]
        assert len(set(owners)) == len(changes) + 1, f"trial {number}: two workers in turn"
        for before, after in pairwise(rows):
            same = before["process"] == after["process"]
            assert after["step"] == before["step"] + 1 if same else after["step"] <= before["step"] + 1
        assert rows[-1]["step"] == STEPS and {row["step"] for row in rows} == set(range(1, STEPS + 1))
        handovers += len(changes)
    return handovers


def kill_at_random(sweep: SweepConfig, kills: int, workers: int, seed: int, step_seconds: float) -> None:
    """Run a search by `workers` processes, of which one is killed and replaced every moment, `kills` times.

    Most are killed after some steps, some while they start.
    """
    rng = random.Random(seed)
    running = [start(sweep, step_seconds) for _ in range(workers)]
    for _ in range(kills):
        victim, steps = rng.randrange(workers), rng.choice((0, 1, 2, 5, 9, 15))
        trace = Path(str(sweep.folder)) / f"steps.{running[victim].pid}"
        while running[victim].is_alive() and steps and count(trace) < steps:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))
        running[victim].kill()
        running[victim].join()
        running[victim] = start(sweep, step_seconds)
    for process in running:
        process.join(120)
        assert process.exitcode == 0
