"""Task `setfit` beside the package `setfit`, on the same few examples: test accuracy and processor time.

    python benchmarks/few_shot.py --setfit-python ../setfit-venv/bin/python --data DATA --output few_shot.json

DATA holds sst2 and banking77 as JSONL (train and test or validation). Of banking77 the largest classes are taken. Both
read the same files and make the same number of steps of 16 pairs, lr 2e-5, in fp32 on one thread; times are processor
seconds from the model's folder to the predictions, without imports.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import mean, stdev
from typing import Any

CLASSES, TEST, STEPS, BATCH, RATE = 20, 300, 40, 16, 2e-5


def ours(folder: Path, model: str, steps: int, seed: int) -> dict[str, float]:
    import research
    from research.training import run  # noqa: F401  imported before the clock starts

    settings = {
        "task": {"name": "setfit", "iterations": 20},
        "model": {"name": model},
        "data": {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl"), "max_length": 256,
                 "max_overlap": 1.0},
        "optim": {"lr": RATE, "batch_size": BATCH, "max_steps": steps},
        "trainer": {"precision": "fp32", "devices": 1},
        "wandb": {"mode": "disabled"},
        "seed": seed,
        "run_dir": str(folder / f"run-{seed}"),
    }  # fmt: skip
    (folder / "e.yaml").write_text(json.dumps(settings))
    start = time.process_time()
    scores = research.train(folder / "e.yaml").scores["test"]
    return {"accuracy": scores["accuracy"], "seconds": time.process_time() - start}


def theirs(folder: Path, model: str, steps: int, seed: int) -> dict[str, float]:
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    train, test = (
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()] for name in ("train", "test")
    )
    start = time.process_time()
    fitted = SetFitModel.from_pretrained(model, labels=sorted({row["label"] for row in train}))
    arguments = TrainingArguments(
        output_dir=str(folder / "setfit"), batch_size=BATCH, max_steps=steps, body_learning_rate=RATE, seed=seed,
        num_iterations=20, save_strategy="no", report_to="none", show_progress_bar=False, use_amp=False,
    )  # fmt: skip
    Trainer(model=fitted, args=arguments, train_dataset=Dataset.from_list(train)).train()
    found = fitted.predict([row["text"] for row in test])
    right = sum(str(a) == row["label"] for a, row in zip(found, test, strict=True))
    return {"accuracy": right / len(test), "seconds": time.process_time() - start}


def cell(data: Path, name: str, shots: int, seed: int, folder: Path) -> int:
    """Write the sample and the test rows of a cell; returns the steps that both make."""
    import numpy as np

    from research.data.shots import shots_of

    def rows(split: str) -> list[dict[str, Any]]:
        lines = (data / name / f"{split}.jsonl").read_text().splitlines()
        return [{"text": row["text"], "label": str(row["label"])} for row in map(json.loads, lines)]

    train = rows("train")
    test = rows("test" if name == "banking77" else "validation")
    classes = sorted(label for label, _ in Counter(row["label"] for row in train).most_common(CLASSES))
    train, test = ([row for row in part if row["label"] in classes] for part in (train, test))
    chosen = shots_of([row["label"] for row in train], classes, shots, seed, last=False)
    kept = np.sort(np.random.default_rng(0).permutation(len(test))[:TEST])
    for split, part in (("train", [train[i] for i in chosen]), ("test", [test[i] for i in kept])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return min(STEPS, 40 * len(chosen) // BATCH)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--setfit-python")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default="models/all-MiniLM-L6-v2")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--cells", nargs="+", default=["sst2-8", "sst2-64", "banking77-8", "banking77-64"])
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    model = str(Path(options.model).resolve())
    if options.one:
        system, folder, steps, seed = options.one
        print(json.dumps((ours if system == "ours" else theirs)(Path(folder), model, int(steps), int(seed))))
        return
    table = []
    for name, shots in (each.split("-") for each in options.cells):
        found: dict[str, list[dict[str, float]]] = {"ours": [], "setfit": []}
        for seed in range(3):
            with tempfile.TemporaryDirectory() as folder:
                steps = cell(options.data, name, int(shots), seed, Path(folder))
                for system, python in (("ours", sys.executable), ("setfit", options.setfit_python)):
                    command = [python, __file__, "--model", model, "--one", system, folder, str(steps), str(seed)]
                    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    found[system].append(json.loads(said.splitlines()[-1]))
        row: dict[str, Any] = {"data": name, "shots": int(shots), "steps": steps}
        for system, runs in found.items():
            scores = [run["accuracy"] for run in runs]
            row[system] = {
                "accuracy": mean(scores),
                "deviation": stdev(scores),
                "seconds": mean(r["seconds"] for r in runs),
            }
        table.append(row)
        print(json.dumps(row), flush=True)
        options.output.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
