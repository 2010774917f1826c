"""Adapters and methods: score, trained weights, speed and memory, beside a script of the Trainer with peft.

    python benchmarks/methods.py --data DIR --output DIR --peer SCRIPT     measure: DIR/{sst2,wnut17,squad}/*.jsonl
    python benchmarks/methods.py --output DIR --table                      the tables of what is measured so far

Rows are written to OUTPUT/rows.jsonl as they come, and a later call continues after the last. Each run is a process of
one thread, forked with the libraries imported. Rates are examples per second of processor time over the training steps,
which other jobs on the machine hardly move. Peak memory is that of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from page import AS_PRECISION, PRECISION
from processor_time import FILE
from rows import append_row, read_rows

ROOT = Path(__file__).resolve().parent.parent
OURS, PEER = "harness", "peer"
FULL_LR = 5e-5
BATCH = 32


@dataclass(frozen=True)
class DataSet:
    task: str
    epochs: int
    examples: int
    max_length: int
    batch_size: int
    suffix: str
    adapter_lr: float


DATA_SETS = {
    "sst2": DataSet("sentiment", 2, 1536, 128, BATCH, "jsonl", 5e-4),
    "wnut17": DataSet("ner", 3, 3394, 128, BATCH, "jsonl", 2e-3),
    "squad": DataSet("qa", 2, 3000, 384, BATCH, "json", 2e-3),
}
SMALL_LR = DATA_SETS["sst2"].adapter_lr
# fmt: off
ADAPTERS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"rank": 8, "alpha": 16.0},
    "head": {},
    "ia3": {},
    "prefix": {"tokens": 20},
    "prompt": {"tokens": 20},
    "bitfit": {},
    "bottleneck": {},
    "adalora": {},
    "freeze": {"layers": 3, "embeddings": True},
}
AT_PEER = ["full", "lora", "head", "ia3", "prefix", "prompt"]
METHODS: dict[str, dict[str, Any]] = {
    "r_drop": {"alpha": 1.0}, "fgm": {}, "r3f": {}, "mixup": {}, "layer_decay": {"rate": 0.9},
    "ema": {"decay": 0.95}, "supcon": {}, "mixout": {"p": 0.7}, "l2_sp": {}, "l1": {}, "swa": {}, "simcse": {},
    "smart": {}, "freelb": {}, "pgd": {},
}
# fmt: on
EDITS = {"swap": {"share": 0.5, "rate": 0.1}, "delete": {"share": 0.5, "rate": 0.1}}
CURVE: dict[str, dict[str, Any]] = {
    "full": {"optim.lr": FULL_LR},
    "full, augmented": {"optim.lr": FULL_LR, "augment": EDITS},
    "lora": {"optim.lr": SMALL_LR, "adapter": {"name": "lora"}},
    "head": {"optim.lr": SMALL_LR, "adapter": {"name": "head"}},
}
SIZES = (8, 32, 128, 512, None)  # examples; None: all, once
CURVE_STEPS = 48


@dataclass(frozen=True)
class Case:
    """One run: of which table, by which system, and the keys that make it."""

    table: str  # a data set, or "curve"
    name: str  # the adapter or method, or the adapter and the number of examples
    seed: int
    system: str = OURS
    keys: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def folder(self) -> str:
        return f"{self.table}/{self.name}/seed{self.seed}"


def cases(seeds: int) -> Iterator[Case]:
    """All of the first seed before the next."""
    for seed in range(seeds):
        yield from _adapters("sst2", seed, list(ADAPTERS))
        yield from _adapters("wnut17", seed, AT_PEER)
        yield from _adapters("squad", seed, ["full", "lora", "head"])
        for name, own in METHODS.items():
            yield Case("sst2", name, seed, keys={"optim.lr": FULL_LR, "methods": {name: own}})
        for size, (name, own) in product(SIZES, CURVE.items()):
            keys = {**own, "optim.max_steps": size and CURVE_STEPS, "optim.epochs": 1,
                    "optim.batch_size": min(BATCH, size or BATCH),
                    "data.max_train_examples": size, "data.sample": "stratified", "data.split_seed": seed}  # fmt: skip
            yield Case("curve", f"{name}-{size or 'all'}", seed, keys=keys)
        yield from _head_alone(seed)


def _adapters(table: str, seed: int, names: list[str]) -> Iterator[Case]:
    for name in names:
        lr = FULL_LR if name in ("full", "freeze") else DATA_SETS[table].adapter_lr
        yield Case(table, name, seed, keys={"adapter": {"name": name, **ADAPTERS[name]}, "optim.lr": lr})
        if name in AT_PEER and table != "squad":
            yield Case(table, name, seed, PEER, {"lr": lr})


def _head_alone(seed: int) -> Iterator[Case]:
    """Ten epochs of the head, whose layers below are computed once, and a second trial, which finds them computed."""
    keys = {"adapter": {"name": "head"}, "model.frozen_dropout": False, "optim.epochs": 10, "optim.lr": SMALL_LR}
    yield Case("ten epochs", "head", seed, keys=keys)
    yield Case("ten epochs", "head, again", seed, keys={**keys, "optim.lr": 2 * SMALL_LR})
    yield Case("ten epochs", "head", seed, PEER, {"lr": SMALL_LR, "optim.epochs": 10})


def data_set(case: Case) -> tuple[str, DataSet]:
    name = case.table if case.table in DATA_SETS else "sst2"
    return name, DATA_SETS[name]


def harness(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Train one run of this harness in this process."""
    import research

    name, kind = data_set(case)
    run = options.output / "runs" / case.folder
    experiment = options.output / "experiment.json"  # JSON is YAML
    keys = {
        "task": kind.task,
        "model.name": str(options.model),
        "data.train": str(options.data / name / f"train.{kind.suffix}"),
        "data.validation": str(options.data / name / f"validation.{kind.suffix}"),
        "data.max_length": kind.max_length,
        "data.max_train_examples": kind.examples,
        "data.max_eval_examples": 1000 if kind.task == "qa" else None,
        "data.sample": "first",  # as the peer
        "optim.batch_size": kind.batch_size,
        "optim.epochs": kind.epochs,
        "trainer.precision": PRECISION,
        "trainer.devices": 1,
        "trainer.checkpoint_every_minutes": None,
        "trainer.evaluate_every_steps": 10**6,  # at the end alone
        "trainer.progress": False,
        "wandb.mode": "disabled",
        "callbacks": {str(ROOT / "benchmarks" / "processor_time.py"): {}},
        "seed": case.seed,
        "run_dir": str(run),
        **case.keys,
    }
    experiment.write_text("{}", encoding="utf-8")
    result = research.train(str(experiment), **keys).result
    seconds = json.loads((run / FILE).read_text(encoding="utf-8"))["seconds"]
    return {
        "score": result["metrics"]["validation"][result["monitor"]],
        "examples_per_second": result["examples"] / seconds,
        "trained": result["trained_parameters"],
        "peak_mib": result["peak_memory_mib"],
    }


def peer(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Run the peer's script in this process."""
    name, kind = data_set(case)
    log = options.output / "peer.log"
    sys.argv = [
        str(options.peer), kind.task, f"--method={case.name}", f"--data={options.data / name}", *AS_PRECISION,
        f"--model={options.model}", f"--max-length={kind.max_length}", f"--train-examples={kind.examples}",
        f"--seed={case.seed}", f"--epochs={case.keys.get('optim.epochs', kind.epochs)}", f"--lr={case.keys['lr']}",
        "--no-reload",
    ]  # fmt: skip
    sys.stdout.flush()
    with log.open("w", encoding="utf-8") as file:
        sys.stdout = file
        runpy.run_path(str(options.peer), run_name="__main__")
    found = json.loads(log.read_text(encoding="utf-8").strip().splitlines()[-1])
    names = {"examples_per_second": "examples_per_cpu_s", "trained": "trainable"}
    return {key: found[names.get(key, key)] for key in ("score", "examples_per_second", "trained", "peak_mib")}


def forked(
    measure: Callable[[Case, argparse.Namespace], dict[str, Any]], case: Case, options: argparse.Namespace
) -> None:
    """Measure in a child, which appends its row; a failure is a row as well."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    row: dict[str, Any] = {"table": case.table, "name": case.name, "seed": case.seed, "system": case.system}
    try:
        row |= measure(case, options)
    except BaseException as error:  # the table continues
        traceback.print_exc()
        row["failed"] = f"{type(error).__name__}: {error}".splitlines()[0]
    row["processor_seconds"] = time.process_time()
    append_row(options.output, row)
    os._exit(0)


def measure(options: argparse.Namespace) -> None:
    """All cases that have no row yet, until the processor time given is spent."""
    import torch

    torch.set_num_threads(1)
    import_module("research.training.run")  # so that children need not import it

    options.output.mkdir(parents=True, exist_ok=True)
    for case in cases(options.seeds):
        if options.only and not any(fnmatch(case.folder, pattern) for pattern in options.only):
            continue
        rows = read_rows(options.output)
        done = {(r["table"], r["name"], r["seed"], r["system"]) for r in rows}
        if sum(r["processor_seconds"] for r in rows) > 60 * options.minutes:
            print("The time is spent; what is missing is not measured.")
            return
        if (case.table, case.name, case.seed, case.system) in done or (case.system == PEER and not options.peer):
            continue
        forked(harness if case.system == OURS else peer, case, options)
        print(json.dumps(read_rows(options.output)[-1]), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--peer", type=Path, help="a script of the Trainer with peft: TASK --method=NAME --data=DIR ..."
    )
    parser.add_argument("--minutes", type=float, default=60, help="of processor time in all, over all calls")
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="cases as TABLE/NAME/seedN: curve/*, sst2/lora/*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="print the tables of OUTPUT")
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.table:
        from methods_table import tables

        print(tables(read_rows(options.output), options.output))
    else:
        measure(options)


if __name__ == "__main__":
    main()
