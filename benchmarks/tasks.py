"""Scores of relations, several tasks at once, one after the other, and few labels with many texts, by seed.

    python benchmarks/tasks.py --data DIR --output DIR [--only PATTERN ...]
    python benchmarks/tasks.py --output DIR --table

DIR holds semeval2010_task8/, sst2/, wnut17/ and banking77/ as JSONL or as published. Rows are written to
OUTPUT/rows.jsonl as they come, and a later call continues after the last; runs resume as well. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from page import PRECISION, ROOT, machine, table
from rows import append_row, read_rows

SEEDS = range(3)
JOINED = {"sst2": 600, "wnut17": 600, "banking15": 600}  # training examples of each
SEQUENCE = ("banking0", "banking1", "banking2")  # ten intents each
STRATEGIES: list[Any] = ["naive", "joint", {"replay": {"per_class": 5}}, {"ewc": {"strength": 1000}}, "lwf"]
LABELLED = 8  # of each of 15 intents; the other texts are given without their labels
HALF_LABELLED: dict[str, dict[str, Any]] = {
    "labelled alone": {},
    "uda": {
        "methods": {"uda": {}},
        "augment": {"swap": {"share": 1, "rate": 0.1}, "delete": {"share": 1, "rate": 0.1}},
    },
    "mean_teacher": {"methods": {"mean_teacher": {}}},
}


@dataclass(frozen=True)
class Case:
    """One call of `research`, and where its scores stand."""

    name: str
    seed: int
    content: dict[str, Any] = field(compare=False)
    command: str = "train"

    @property
    def label(self) -> str:
        return f"{self.name}/{self.seed}"


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """All of the first seed before the next."""
    place = options.output / "data"
    for seed in SEEDS:
        yield Case("relation", seed, relation(options.data / "semeval2010_task8"))
        joined = {"optim": {"epochs": 3, "batch_size": 16, "lr": 3e-4}, "task": {"parts": False}}
        for name in JOINED:
            yield Case(f"joined/{name} alone", seed, {"tasks": [str(place / f"{name}.yaml")], **joined})
        yield Case("joined/together", seed, {"tasks": [str(place / f"{name}.yaml") for name in JOINED], **joined})
        files = [str(place / f"{name}.yaml") for name in SEQUENCE]
        yield Case("sequence", seed, {"tasks": files, "strategies": STRATEGIES, "orders": 2}, "continual")
        for name, keys in HALF_LABELLED.items():
            yield Case(f"half labelled/{name}", seed, half_labelled(place, keys))


def relation(folder: Path) -> dict[str, Any]:
    """SemEval-2010 Task 8 by its official train and test files."""
    return {
        "task": "relation",
        "data": {"format": "semeval", "columns": {"text": "text", "label": "label"}, "max_length": 128,
                 "train": f"{folder / 'TRAIN_FILE.TXT'}[10%:]", "validation": f"{folder / 'TRAIN_FILE.TXT'}[:10%]",
                 "test": str(folder / "TEST_FILE_FULL.TXT")},
        "optim": {"epochs": 2, "lr": 2e-4},
    }  # fmt: skip


def half_labelled(place: Path, keys: dict[str, Any]) -> dict[str, Any]:
    """A few labelled texts a class, and with a method all other texts of the classes without their labels."""
    unlabelled = {"unlabelled": str(place / "half" / "unlabelled.jsonl")} if "methods" in keys else {}
    files = {name: str(place / "half" / f"{name}.jsonl") for name in ("train", "validation")}
    return {
        "task": "classification",
        "data": {**files, **unlabelled, "max_length": 64},
        "optim": {"max_steps": 120, "batch_size": 16, "lr": 3e-4},
        **keys,
    }


def write_data(options: argparse.Namespace) -> None:
    """The experiments of the tasks that are joined or follow each other, and their files."""
    place = options.output / "data"
    (place / "half").mkdir(parents=True, exist_ok=True)
    train, test = (read(options.data / "banking77" / f"{name}.jsonl") for name in ("train", "test"))
    intents = [label for label, _ in Counter(row["label"] for row in train).most_common(30)]

    def banking(name: str, labels: Sequence[Any], count: int) -> None:
        parts = {"train": of(train, labels)[:count], "validation": of(test, labels)[:200]}
        for split, rows in parts.items():
            write(place / f"{name}-{split}.jsonl", rows)
        files = {split: str(place / f"{name}-{split}.jsonl") for split in parts}
        experiment(place / f"{name}.yaml", "classification", {**files, "max_length": 64})

    banking("banking15", intents[:15], JOINED["banking15"])
    for k, name in enumerate(SEQUENCE):
        banking(name, intents[10 * k : 10 * k + 10], 200)
    for name, task in (("sst2", "sentiment"), ("wnut17", "ner")):
        files = {split: str(options.data / name / f"{split}.jsonl") for split in ("train", "validation")}
        limits = {"max_train_examples": JOINED[name], "sample": "first", "max_length": 128}
        experiment(place / f"{name}.yaml", task, {**files, **limits})
    places = Counter[Any]()
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "unlabelled": [], "validation": of(test, intents[:15])}
    for row in of(train, intents[:15]):
        places[row["label"]] += 1
        if places[row["label"]] <= LABELLED:
            parts["train"].append(row)
        else:
            parts["unlabelled"].append({"text": row["text"]})
    for name, rows in parts.items():
        write(place / "half" / f"{name}.jsonl", rows)


def of(rows: Sequence[dict[str, Any]], labels: Sequence[Any]) -> list[dict[str, Any]]:
    """The rows with one of these labels, in a fixed random order."""
    import numpy as np

    order = np.random.default_rng(0).permutation(len(rows))
    return [rows[i] for i in order if rows[i]["label"] in labels]


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def experiment(file: Path, task: str, data: dict[str, Any]) -> None:
    """An experiment that is named by others; JSON is YAML."""
    model = str((ROOT / "models" / "all-MiniLM-L6-v2").resolve())
    file.write_text(json.dumps({"task": task, "model": {"name": model}, "data": data}), encoding="utf-8")


def measure(case: Case, options: argparse.Namespace) -> dict[str, float]:
    """Run one case; returns its scores by name."""
    run = options.output / "runs" / case.label.replace(" ", "-")
    run.parent.mkdir(parents=True, exist_ok=True)
    every: dict[str, Any] = {
        "model": {"name": str(options.model.resolve())},
        "trainer": {"precision": PRECISION, "devices": 1, "progress": False, "checkpoint_every_minutes": None,
                    "evaluate_every_steps": 10**6, "keep_checkpoints": "none"},
        "wandb": {"mode": "disabled"},
    }  # fmt: skip
    if case.command == "continual":
        del every["model"], every["trainer"]["keep_checkpoints"]
        sizes = {"optim": {"epochs": 1, "batch_size": 16, "lr": 5e-4}}
        content = {**case.content, "seeds": [case.seed], "output": str(run), "experiment": {**every, **sizes}}
    else:
        content = {**every, **case.content, "seed": case.seed, "run_dir": str(run)}
        if "tasks" in content:
            del content["model"]
    file = run.parent / f"{run.name}.yaml"
    file.write_text(json.dumps(content), encoding="utf-8")
    command = [sys.executable, "-m", "research.cli", case.command, str(file)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return sequence_scores(run) if case.command == "continual" else run_scores(run)


def run_scores(run: Path) -> dict[str, float]:
    """The main score of the run, or that of each task of it."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    scores = result["metrics"].get("test") or result["metrics"]["validation"]
    if result["monitor"] != "mean":
        return {result["monitor"]: scores[result["monitor"]]}
    main = ("sst2.accuracy", "wnut17.f1", "banking15.accuracy")
    return {name: scores[name] for name in main if name in scores}


def sequence_scores(folder: Path) -> dict[str, float]:
    """ACC and BWT of each strategy, means over the orders."""
    found: dict[str, list[float]] = defaultdict(list)
    for run in json.loads((folder / "continual.json").read_text(encoding="utf-8")):
        for figure in ("ACC", "BWT"):
            found[f"{run['strategy']} {figure}"].append(run[figure])
    return {name: statistics.mean(values) for name, values in found.items()}


def page(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each score: mean and deviation over seeds."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row["scores"].items():
            found[row["name"], name].append(value)
    cells = [
        [case, name, str(len(values)), f"{statistics.mean(values):.3f}"
         + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")]
        for (case, name), values in found.items()
    ]  # fmt: skip
    head = ["case", "score", "seeds", "mean ± deviation"]
    return "\n".join([f"{machine()['processor']}, one thread, {PRECISION}", "", *table(head, cells)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="cases as NAME/SEED: relation/*")
    parser.add_argument("--table", action="store_true", help="print the table of OUTPUT")
    options = parser.parse_args()
    options.output = options.output.resolve()
    if options.table:
        return print(page(read_rows(options.output)))
    write_data(options)
    for case in cases(options):
        done = {(row["name"], row["seed"]) for row in read_rows(options.output)}
        wanted = not options.only or any(fnmatch(case.label, pattern) for pattern in options.only)
        if (case.name, case.seed) in done or not wanted:
            continue
        row = {"name": case.name, "seed": case.seed, "scores": measure(case, options)}
        append_row(options.output, row)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
