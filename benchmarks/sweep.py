"""A search by two workers of this harness, and the same search by `Trainer.hyperparameter_search`, in turn.

    python benchmarks/sweep.py --data DIR          DIR/sst2/{train,validation}.jsonl: the figures
    python benchmarks/sweep.py --trials 3          the shipped quickstart data: shows that it works

SST-2 sentences, MiniLM, random learning rate and warmup, the same points in the same order, Optuna's successive halving
with the same rungs, one epoch at most over the first `--examples`. Ours: two processes with half of the cores each; the
Trainer: one process with all of them. Both from the start of their processes to the last decided trial. Prints, round
by round (each with a seed of its own), the seconds, the steps made, the best score of any evaluation and the ratio of
the seconds; writes benchmarks/results/sweep-<date>.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from page import AS_PRECISION, PRECISION, ROOT, machine
from speed import HERE, Case, find, last_object, run_process

os.environ.setdefault("HF_HUB_OFFLINE", "1")

CASE = Case("sentiment", 32, 128)
LR, WARMUP = (5e-6, 5e-4), (0.0, 0.1)


def sweep_file(options: argparse.Namespace, folder: Path, steps: int, seed: int) -> Path:
    """The search as a sweep file, with its experiment beside it."""
    data = {split: str(find(options.data, "sst2", CASE, split)) for split in ("train", "validation")}
    experiment: dict[str, Any] = {
        "task": "sentiment",
        "model": {"name": str(options.model)},
        "seed": seed,
        "data": {
            **data,
            "max_length": CASE.max_length,
            "max_train_examples": steps * CASE.batch_size,
            "sample": "first",
        },
        "optim": {"batch_size": CASE.batch_size, "epochs": 1},
        "trainer": {
            "precision": PRECISION,
            "devices": 1,
            "checkpoint_every_minutes": None,
            "progress": False,
            "last_layer": "read",
            "evaluate_examples": options.evaluate_examples,
        },
        "wandb": {"mode": "disabled"},
    }
    sweep: dict[str, Any] = {
        "experiment": str(folder / "experiment.yaml"),
        "folder": str(folder / "sweep"),
        "settings": {"trainer.evaluate_every_steps": every(steps), "trainer.evaluation_growth": 3},
        "space": {
            "optim.lr": {"low": LR[0], "high": LR[1], "log": True},
            "optim.warmup_ratio": {"low": WARMUP[0], "high": WARMUP[1]},
        },
        "sampler": {"name": "random", "seed": seed},
        "seeds": [seed],
        "pruner": {"name": "asha", "reduction_factor": 3, "min_steps": every(steps)},
        "budget": {"trials": options.trials},
    }
    for name, content in (("experiment", experiment), ("sweep", sweep)):
        (folder / f"{name}.yaml").write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    return folder / "sweep.yaml"


def every(steps: int) -> int:
    """A ninth of a run, after the largest warmup: the rungs are at a ninth and a third, where ours evaluates."""
    return max(2, steps // 9, int(WARMUP[1] * steps))


def ours(path: Path, workers: int) -> dict[str, Any]:
    """The search by so many workers, each with a core."""
    from research.sweep.study import read_search
    from research.sweep.sweepfile import load_sweep

    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers))}
    command = [sys.executable, "-m", "research.cli", "sweep", str(path)]
    began = time.time()
    running = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(workers)
    ]
    codes = [process.wait() for process in running]
    seconds = time.time() - began
    trials = read_search(load_sweep(path)).trials()
    states = [trial.state.name for trial in trials]
    if codes != [0] * workers or not set(states) <= {"COMPLETE", "PRUNED"}:
        raise SystemExit(f"The workers ended with {codes}, the trials {states}.")
    return {
        "best": max(value for trial in trials for value in (trial.value, *trial.intermediate_values.values()) if value),
        "steps": sum(run["steps"] for trial in trials for run in trial.user_attrs["runs"]),
        "complete": states.count("COMPLETE"),
        "pruned": states.count("PRUNED"),
        "seconds": round(seconds, 1),
    }


def peer(options: argparse.Namespace, steps: int, seed: int) -> dict[str, Any]:
    """The same search by the Trainer, with every core."""
    asked = {
        "trials": options.trials,
        "seed": seed,
        "lr": LR,
        "warmup": WARMUP,
        "evaluate_every_steps": every(steps),
        "min_resource": every(steps),
        "reduction_factor": 3,
    }
    files = [f"--{split}={find(options.data, 'sst2', CASE, split)}" for split in ("train", "validation")]
    command = [
        sys.executable, str(HERE / "hf_search.py"), "sentiment", f"--model={options.model}", *files, *AS_PRECISION,
        f"--batch-size={CASE.batch_size}", f"--max-length={CASE.max_length}", "--epochs=1",
        f"--max-train-examples={steps * CASE.batch_size}", f"--seed={seed}", f"--search={json.dumps(asked)}",
    ]  # fmt: skip
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(os.cpu_count())}
    return last_object(run_process(command, environment))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "research" / "quickstart")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--examples", type=int, default=4608, help="trained on, at most")
    parser.add_argument("--evaluate-examples", type=int, help="of validation at the rungs; by default all")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--output", type=Path, default=HERE / "results")
    options = parser.parse_args()
    options.data, options.model = options.data.resolve(), options.model.resolve()
    with open(find(options.data, "sst2", CASE, "train"), encoding="utf-8") as file:
        steps = min(options.examples, sum(1 for _ in file)) // CASE.batch_size
    rounds, ratios = [], []
    for seed in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append({"ours": ours(sweep_file(options, Path(folder), steps, seed), options.workers)})
        rounds[-1]["trainer"] = peer(options, steps, seed)
        ratios.append(rounds[-1]["trainer"]["seconds"] / rounds[-1]["ours"]["seconds"])
        print(json.dumps({**rounds[-1], "ratio": round(ratios[-1], 2)}), flush=True)
    record = {
        "machine": machine(),
        "trials": options.trials,
        "steps": steps,
        "evaluate_examples": options.evaluate_examples,
        "rounds": rounds,
        "ratios": ratios,
    }
    options.output.mkdir(exist_ok=True)
    name = f"sweep-{datetime.date.today().isoformat()}.json"
    (options.output / name).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"{statistics.median(ratios):.2f} times less wall time; {options.output / name}")


if __name__ == "__main__":
    main()
