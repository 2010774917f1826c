"""How much the record of a search costs: 500 trials of 20 reports each by 8 workers that compute nothing.

    python benchmarks/sweep_storage.py                                    a journal file in a temporary folder
    python benchmarks/sweep_storage.py --storage postgresql://me@host/db  an empty database

Each trial is enqueued with a number of its own as its parameter, taken by one worker, reports 20 values and is reported
its score. Prints the seconds, and fails unless each trial was run exactly once.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from research.config.schema import Config
from research.metrics.score import Score
from research.sweep.space import suggest
from research.sweep.study import open_search, read_search
from research.sweep.sweepfile import BudgetConfig, Parameter, SamplerConfig, StorageConfig, SweepConfig


def sweep_of(folder: Path, trials: int, storage: str | None) -> SweepConfig:
    """A search over the number of a trial and one more parameter."""
    return SweepConfig(
        experiment="none",
        name="storage",
        folder=str(folder),
        space={
            "seed_init": Parameter(low=0, high=trials - 1),
            "optim.lr": Parameter(low=1e-6, high=1e-3, log=True),
        },
        enqueue=[{"seed_init": number} for number in range(trials)],
        sampler=SamplerConfig(name="random"),
        budget=BudgetConfig(trials=trials),
        storage=StorageConfig(url=storage or str(folder / "journal.log")),
    )


def work(sweep: SweepConfig, reports: int) -> None:
    """Take trials until none is left."""
    search = open_search(sweep, Config(), Score("accuracy", "accuracy"), resume_anyway=False)
    while (taken := search.next()) is not None:
        trial, claim = taken
        values = suggest(sweep.space, trial)
        for step in range(1, reports + 1):
            search.report(trial, step / reports, step)
        search.finish(trial, claim, TrialState.COMPLETE, float(values["seed_init"]))


def run(folder: Path, trials: int, reports: int, workers: int, storage: str | None) -> dict[str, Any]:
    """Seconds from the first worker's start to the last one's end. Raises AssertionError where a trial went wrong."""
    sweep = sweep_of(folder, trials, storage)
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["research.sweep.study"])
    warm = context.Process(target=print, args=("",))  # the imports are not what is measured
    warm.start()
    warm.join()
    began = time.perf_counter()
    processes = [context.Process(target=work, args=(sweep, reports)) for _ in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - began
    assert [process.exitcode for process in processes] == [0] * workers
    reported = read_search(sweep).trials()
    assert [t.state for t in reported] == [TrialState.COMPLETE] * trials
    assert sorted(t.params["seed_init"] for t in reported) == list(range(trials))
    assert all(len(t.intermediate_values) == reports for t in reported)
    return {"trials": trials, "reports": reports, "workers": workers, "seconds": round(seconds, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--reports", type=int, default=20)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--storage", help="of an empty database; without it a journal file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), options.trials, options.reports, options.workers, options.storage)
    kind = options.storage.split(":")[0] if options.storage else "journal"
    print(json.dumps({"storage": kind, **found}))


if __name__ == "__main__":
    main()
