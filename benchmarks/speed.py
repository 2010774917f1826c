"""This harness and the Hugging Face Trainer in turn: the same cores, weights, data and precision.

    python benchmarks/speed.py                    the shipped quickstart data: shows that it works
    python benchmarks/speed.py --data DIR         DIR/{sst2_phrases,wnut17,squad}/train.{jsonl,conll,json}: the figures

Prints, per data set, the median ratio of examples per second over the pairs with its spread, and writes
benchmarks/results/<date>.md and .json. Each run is a process of its own; start-up and the first steps do not count.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from page import AS_PRECISION, OURS, PRECISION, ROOT, Figures, machine, markdown, spread

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

HERE = Path(__file__).resolve().parent
PEERS = {"dynamic": AS_PRECISION, "grouped": [*AS_PRECISION, "--group-by-length"], "naive": ["--naive"]}
WARMUP_STEPS = 25  # at most; a slow system has fewer, or its warm-up would outlast its measurement


@dataclass(frozen=True)
class Case:
    """A data set of the benchmark and how it is trained on."""

    task: str
    batch_size: int
    max_length: int


CASES = {"sst2_phrases": Case("sentiment", 32, 128), "wnut17": Case("ner", 32, 128), "squad": Case("qa", 12, 384)}


@dataclass
class Job:
    """A case with its files, the model, and a folder for what runs leave behind."""

    case: Case
    train: Path
    validation: Path
    model: Path
    scratch: Path
    examples: int | None  # of the training file; None: all
    runs: int = 0

    def config(self, **sections: dict[str, Any]) -> Path:
        """The YAML of an experiment of this harness; `sections` add keys."""
        self.runs += 1
        content: dict[str, Any] = {
            "task": self.case.task,
            "run_dir": str(self.scratch / f"run{self.runs}"),
            "model": {"name": str(self.model)},
            "data": {
                "train": str(self.train),
                "max_length": self.case.max_length,
                "max_train_examples": self.examples,
                "sample": "first",
            },  # as the peers
            "optim": {"batch_size": self.case.batch_size},
            "trainer": {"precision": PRECISION, "devices": 1, "checkpoint_every_minutes": None, "progress": False},
            "wandb": {"mode": "disabled"},
        }
        for name, keys in sections.items():
            content[name] = {**content[name], **keys}
        path = self.scratch / f"run{self.runs}.yaml"
        path.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
        return path


def find(data: Path, name: str, case: Case, split: str) -> Path:
    """The file of a split: DATA/<data set>/<split>.*, or DATA/<task>/<split>.* as the quickstart has it."""
    folders = [data / name, data / case.task]
    found = [p for f in folders for suffix in ("jsonl", "json", "conll") if (p := f / f"{split}.{suffix}").is_file()]
    if not found:
        raise SystemExit(f"There is no {split}.jsonl, .json or .conll in {' or '.join(map(str, folders))}.")
    return found[0]


def harness(job: Job, steps: int, warmup: int, seed: int, environment: dict[str, str] | None = None) -> Figures:
    """One run of this harness: figures of its steps after the warm-up, and the seconds to its first logged row."""
    trainer = {"log_every_steps": max(1, warmup)}
    path = job.config(optim={"batch_size": job.case.batch_size, "max_steps": steps}, trainer=trainer)
    path.write_text(json.dumps({**json.loads(path.read_text()), "seed": seed}), encoding="utf-8")
    run, began = job.scratch / path.stem, time.time()
    run_process([sys.executable, "-m", "research.cli", "train", str(path)], environment)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        **steady(rows, warmup),
        "peak_mib": json.loads((run / "result.json").read_text(encoding="utf-8"))["peak_memory_mib"],
        "last_row_seconds": (run / "metrics.jsonl").stat().st_mtime - began,
    }


def steady(rows: Sequence[dict[str, float]], warmup: int) -> Figures:
    """Rates over the rows of metrics.jsonl after step `warmup`, each weighted by its duration."""
    rows = [row for row in rows if "time/step_seconds" in row]
    steps = [row["step"] for row in rows]
    seconds = [
        row["time/step_seconds"] * (step - before) for row, step, before in zip(rows, steps, [0, *steps], strict=False)
    ]
    timed = [(row, s) for row, step, s in zip(rows, steps, seconds, strict=True) if step > warmup]
    total = sum(s for _, s in timed)
    return {
        name: sum(row[f"time/{name}"] * s for row, s in timed) / total
        for name in ("examples_per_second", "tokens_per_second")
    }


def peer(job: Job, options: Sequence[str], steps: int, warmup: int, seed: int) -> Figures:
    """One run of the Trainer."""
    case = job.case
    command = [
        sys.executable, str(HERE / "hf_trainer.py"), case.task, f"--model={job.model}", f"--train={job.train}",
        f"--batch-size={case.batch_size}", f"--max-length={case.max_length}", f"--max-steps={steps}",
        f"--warmup-steps={warmup}", f"--seed={seed}", *options,
    ]  # fmt: skip
    command += [f"--max-train-examples={job.examples}"] if job.examples else []
    return last_object(run_process(command))


def run_process(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **(environment or {})}, capture_output=True, text=True)
    if done.returncode:
        said = f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        raise SystemExit(f"{shlex.join(command)} ended with {done.returncode}:\n{said}")  # -9: often out of memory
    return done.stdout


def last_object(output: str) -> dict[str, Any]:
    """The JSON object on the last line."""
    result: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return result


def one(job: Job, system: str, steps: int, warmup: int, seed: int) -> Figures:
    if system == OURS:
        return harness(job, steps, warmup, seed)
    return peer(job, PEERS[system], steps, warmup, seed)


def plan_steps(step_seconds: float, seconds: float) -> tuple[int, int]:
    """Steps of a run and how many of them warm up, for a measurement of about `seconds`."""
    warmup = min(WARMUP_STEPS, max(3, round(0.25 * seconds / step_seconds)))
    return warmup + max(5, round(seconds / step_seconds)), warmup


def calibrated(job: Job, system: str, seconds: float) -> tuple[int, int]:
    """The steps a system needs, from a short run that does not count."""
    rate = one(job, system, 12 if system != "naive" else 5, 3 if system != "naive" else 1, 0)["examples_per_second"]
    return plan_steps(job.case.batch_size / rate, seconds)


def rotated(names: Sequence[str], by: int) -> list[str]:
    """Another one begins each round, so that no system always runs after the same other."""
    return [*names[by % len(names) :], *names[: by % len(names)]]


def compare(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """The pairs of one data set, and what is measured beside them."""
    from rates import layer_rate

    systems = [OURS, *options.against]
    fixed = (options.steps, options.steps // 4) if options.steps else None
    steps: dict[str, tuple[int, int]] = {s: fixed or calibrated(job, s, options.seconds) for s in systems}
    rounds, rates, tokens = [], [], 0
    for k in range(options.pairs):
        order = rotated(systems, k)
        rounds.append({s: one(job, s, *steps[s], k) for s in order})
        ours = rounds[-1][OURS]
        tokens = round(ours["tokens_per_second"] / ours["examples_per_second"] * job.case.batch_size)
        rates.append(layer_rate(tokens, *model_widths(job.model), precision=PRECISION))
        print("  " + ", ".join(f"{s} {rounds[-1][s]['examples_per_second']:.1f}" for s in systems), flush=True)
    return {
        "steps": {s: {"all": n, "warm-up": w} for s, (n, w) in steps.items()},
        "tokens_per_step": tokens,
        "matrix_rate": statistics.median(rates),
        "rounds": rounds,
        "first_step": first_steps(job, options.pairs),
        **inside(job, options.loop_steps),
    }


def model_widths(model: Path) -> tuple[int, int]:
    own = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return own["hidden_size"], own["intermediate_size"]


def first_steps(job: Job, pairs: int) -> dict[str, list[float]]:
    """Seconds from command to the end of the first step: this harness on new data and on data it knows, the Trainer."""
    seconds: dict[str, list[float]] = {"harness, first time": [], "harness, again": [], "dynamic": []}
    for k in range(min(3, pairs)):
        with tempfile.TemporaryDirectory() as cache:
            for name in ("harness, first time", "harness, again"):
                row = harness(job, 1, 0, k, {"HF_DATASETS_CACHE": cache})
                seconds[name].append(row["last_row_seconds"])
        seconds["dynamic"].append(peer(job, PEERS["dynamic"], 1, 0, k)["first_step_seconds"])
    return seconds


def inside(job: Job, loop_steps: int) -> dict[str, Any]:
    """What is measured in this process: useful operations, evaluation, tokenising, Lightning's loop."""
    import measure
    from rates import layer_parameters, training_flops

    from research.batching.store import INPUT
    from research.config.load import load_config
    from research.training.build import build

    module = build(load_config(job.config(data={"test": str(job.validation)})))
    store, own = module.data.stores["train"], module.backbone.model.config
    lengths = store.streams[INPUT].windows.rows(range(len(store)))  # type: ignore[arg-type]
    flops = training_flops(
        layer_parameters(module.backbone.model), own.num_hidden_layers, own.hidden_size,
        [length for windows in lengths for length in windows],
    )  # fmt: skip
    ours = measure.evaluation(module)
    theirs = peer(job, [*PEERS["dynamic"], f"--validation={job.validation}", "--evaluate"], 1, 0, 0)
    loop = load_config(job.config(optim={"batch_size": job.case.batch_size, "max_steps": loop_steps}))
    return {
        "flops_per_token": flops / float(store.tokens.sum()),
        "evaluation_examples_per_second": {OURS: ours, "dynamic": theirs["evaluation_examples_per_second"]},
        "tokenising": measure.tokenising(module),
        "loop": measure.lightning_cost(loop),
    }


def against_yardstick(job: Job, options: argparse.Namespace) -> list[float]:
    """Our script of the Trainer over another one, whole loops: is the peer a fair one?"""
    steps, found = options.steps or 40, []
    command = [
        sys.executable, options.yardstick, job.case.task, f"--data={job.train.parent}", f"--model={job.model}",
        f"--batch-size={job.case.batch_size}", f"--max-steps={steps}", *AS_PRECISION, "--no-eval",
    ]  # fmt: skip
    for k in range(options.pairs):
        rates = {}
        for name in rotated(["ours", "theirs"], k):
            if name == "ours":
                rates[name] = peer(job, PEERS["dynamic"], steps, 0, k)["examples_per_second"]
            else:
                rates[name] = last_object(run_process([*command, f"--seed={k}"]))["examples_per_s"]
        found.append(rates["ours"] / rates["theirs"])
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "research" / "quickstart")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--against", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=13, help="of each run's measured steps")
    parser.add_argument("--steps", type=int, help="steps of every run instead, a quarter of them to warm up")
    parser.add_argument("--loop-steps", type=int, default=80, help="steps that compare Lightning's loop to a bare one")
    parser.add_argument("--examples", type=int, help="use the first of each training file only")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument("--yardstick", help="another script of the Trainer to compare benchmarks/hf_trainer.py with")
    return parser.parse_args()


def main() -> None:
    options = parse()
    results: dict[str, Any] = {}
    for name in options.cases:
        case, data = CASES[name], options.data.resolve()
        print(name, flush=True)
        with tempfile.TemporaryDirectory(prefix="speed-") as scratch:
            train, validation = (find(data, name, case, split) for split in ("train", "validation"))
            job = Job(case, train, validation, options.model.resolve(), Path(scratch), options.examples)
            if options.yardstick:
                print(f"  hf_trainer.py / {options.yardstick}: {spread(against_yardstick(job, options))}")
                continue
            results[name] = compare(job, options)
    if options.yardstick:
        return
    record = {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "benchmarks/speed.py", *sys.argv[1:]]),
        "machine": machine(),
        "against": options.against,
        "results": results,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{record['date']}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    page = markdown(record)
    (options.output / f"{record['date']}.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
