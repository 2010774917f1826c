"""Smaller models of one run: size, speed, score and changed labels of each export, and of a run with fewer layers.

    python benchmarks/compression.py --data DIR --output DIR          DIR/{sst2,wnut17}/{train,validation}.*

For each data set a run is trained, a second one of every other layer is taught by it, and both are exported. Scores are
those of the validation file; changed labels are counted against the run that is not compressed. Speed is texts per
processor second of the predictor on one thread, 32 texts a call and one, in rounds over all exports in turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from page import PRECISION, ROOT, machine, table

import research
from research.cli import main as command
from research.deploy.comparison import relabelled
from research.deploy.export import export
from research.deploy.exported import load_exported
from research.inference.predictor import Predictor
from research.tracking import predictions
from research.tracking.run import Run

TASKS = {"sst2": ("sentiment", "jsonl"), "wnut17": ("ner", "conll")}
EXPORTS = [
    ("safetensors", "fp32"), ("safetensors", "bf16"), ("onnx", "fp32"), ("onnx", "int8"), ("onnx", "int8_static"),
    ("openvino", "fp32"), ("openvino", "bf16"),
]  # fmt: skip
LAYERS = [1, 3, 5]
MODEL_FILES = {".safetensors", ".onnx", ".data", ".bin", ".xml"}
TIMED, TOGETHER, ROUNDS = 320, 32, 5


@dataclass
class Row:
    """One exported folder."""

    data: str
    name: str
    mebibytes: float
    score: float
    changed: int
    examples: int
    together: float  # texts per processor second
    alone: float


def train(data: str, options: argparse.Namespace) -> tuple[Run, Run]:
    """The run, and one of fewer layers that it teaches."""
    task, suffix = TASKS[data]
    experiment = options.output / "experiment.json"  # JSON is YAML
    experiment.write_text("{}", encoding="utf-8")
    runs = [options.output / "runs" / data, options.output / "runs" / f"{data}-{len(LAYERS)}layers"]
    keys = {
        "task": task,
        "data.train": str(options.data / data / f"train.{suffix}"),
        "data.validation": str(options.data / data / f"validation.{suffix}"),
        "trainer.precision": PRECISION,
        "trainer.devices": 1,
        "wandb.mode": "disabled",
    }
    research.train(str(experiment), **keys, **{"model.name": str(options.model), "run_dir": str(runs[0])})
    if not (runs[0] / "logits").exists():
        assert command(["evaluate", str(runs[0]), "--split", "train", "--logits"]) == 0
    smaller = {
        "model.name": str(runs[0]),
        "model.keep_layers": LAYERS,
        "methods": {"distil": {"teacher": str(runs[0])}},
        "optim.epochs": 6,
        "run_dir": str(runs[1]),
    }
    research.train(str(experiment), **keys, **smaller)
    return Run.read(runs[0]), Run.read(runs[1])


def folders(data: str, full: Run, fewer: Run, options: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """The name of each export and its folder, which is written."""
    for run, said in ((full, ""), (fewer, f", {len(LAYERS)} of 6 layers")):
        for format, precision in EXPORTS if run is full else [("safetensors", "fp32"), ("onnx", "int8")]:
            place = options.output / "exports" / run.path.name / f"{format}-{precision}"
            export(run, place, format, precision, tolerance=1.0)
            yield f"{format} {precision}{said}", place
    place = options.output / "exports" / full.path.name / "vocabulary"
    export(full, place, tolerance=1.0, vocabulary=[options.data / data / f"train.{TASKS[data][1]}"])
    yield "safetensors fp32, vocabulary of the data", place


def measured(data: str, options: argparse.Namespace) -> list[Row]:
    """A row for each export of a data set."""
    full, fewer = train(data, options)
    own = predictions.read(full.predictions / "validation.parquet")
    monitor = str((full.result or {})["monitor"])
    named = dict(folders(data, full, fewer, options))
    served = {name: load_exported(folder) for name, folder in named.items()}
    fields = [name for name in next(iter(served.values())).fields if name in own.column_names]
    given = [{field: row[field] for field in fields if row[field] is not None} for row in own.to_pylist()]
    speeds = timed(served, given)
    rows = []
    for name, folder in named.items():
        again = relabelled(own, served[name], [served[name].question(row) for row in given])
        answers = zip(again["prediction"].to_pylist(), own["prediction"].to_pylist(), strict=True)
        changed, score = sum(a != b for a, b in answers), predictions.score(again)[monitor]
        rows.append(Row(data, name, size(folder), score, changed, len(given), *speeds[name]))
        print(rows[-1], flush=True)
    return rows


def answered(predictor: Predictor, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return predictor.answer([predictor.question(row) for row in given])


def timed(served: dict[str, Predictor], given: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Texts per processor second of each: medians over rounds, so many together and alone."""
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in served}
    texts = given[:TIMED]
    for number in range(ROUNDS + 1):
        for name, predictor in served.items():
            began = time.process_time()
            for start in range(0, len(texts), TOGETHER):
                answered(predictor, texts[start : start + TOGETHER])
            between = time.process_time()
            for row in texts[:TOGETHER]:
                answered(predictor, [row])
            ended = time.process_time()
            if number:  # the first one warms
                rates[name].append((len(texts) / (between - began), TOGETHER / (ended - between)))
    return {name: (statistics.median(a for a, _ in r), statistics.median(b for _, b in r)) for name, r in rates.items()}


def size(folder: Path) -> float:
    """MiB of the model's files, without tokenizer and records."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in MODEL_FILES) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=TASKS, default=list(TASKS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    rows = [row for data in options.sets for row in measured(data, options)]
    print(f"{machine()['processor']}, one thread, {PRECISION} training\n")
    head = ["data", "export", "MiB", "score", "labels changed", "texts a CPU-second", "one at a time"]
    cells = [
        [r.data, r.name, f"{r.mebibytes:.1f}", f"{r.score:.4f}", f"{r.changed} of {r.examples}", f"{r.together:.0f}",
         f"{r.alone:.0f}"]
        for r in rows
    ]  # fmt: skip
    print("\n".join(table(head, cells)))


if __name__ == "__main__":
    main()
