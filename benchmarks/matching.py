"""Matching by this harness and by sentence-transformers in turn: the same loss, pairs, weights, batch and steps.

    python benchmarks/matching.py --data DIR --peer PYTHON [--model models/all-MiniLM-L6-v2] [--seeds 3] [--pairs 512]

DIR holds squad/ (train.json, validation.json). A question is to find its context: 512 training contexts with one
question each, then 100 other contexts with all their questions. PYTHON is an interpreter with sentence-transformers,
whose MultipleNegativesRankingLoss (scale 20) is the loss of `task.symmetric=false` at temperature 0.05. Prints, as
JSON, MRR of both by the project's scorer and examples per processor second of the training steps, by seed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np

from research.metrics.retrieval import scores_of_ranks

HERE = Path(__file__).resolve().parent
BATCH, LR = 32, 2e-5


def write_rows(source: Path, file: Path, contexts: int, only_first: bool) -> Path:
    """Questions with their contexts, of so many distinct contexts, drawn with seed 0."""
    found: dict[str, list[str]] = {}
    for article in json.loads(source.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            questions = [each["question"].strip() for each in paragraph["qas"]]
            found.setdefault(paragraph["context"], []).extend(dict.fromkeys(questions))
    chosen = random.Random(0).sample(sorted(context for context in found if found[context]), contexts)
    pairs = [(q, context) for context in chosen for q in (found[context][:1] if only_first else found[context])]
    first = dict.fromkeys(pairs)
    file.write_text("".join(json.dumps({"query": q, "document": d}) + "\n" for q, d in first), encoding="utf-8")
    return file


def ours(model: Path, files: dict[str, Path], folder: Path, seed: int, length: int) -> dict[str, float]:
    config = {
        "task": {"name": "matching", "symmetric": False, "temperature": 0.05},
        "model": {"name": str(model)},
        "data": {"train": str(files["train"]), "validation": str(files["test"]), "max_length": length},
        "optim": {"batch_size": BATCH, "lr": LR, "epochs": 1},
        "trainer": {"precision": "bf16", "devices": 1, "checkpoint_every_minutes": None, "progress": False,
                    "tokens_per_microbatch": 16384},
        "callbacks": {str(HERE / "processor_time.py"): {}},
        "wandb": {"mode": "disabled"}, "seed": seed, "run_dir": str(folder / "run"),
    }  # fmt: skip
    (folder / "e.yaml").write_text(json.dumps(config), encoding="utf-8")
    process(sys.executable, "-m", "research.cli", "train", str(folder / "e.yaml"))
    seconds = json.loads((folder / "run" / "processor_time.json").read_text())["seconds"]
    result = json.loads((folder / "run" / "result.json").read_text())
    scores = result["metrics"]["validation"]
    return {
        "mrr": scores["mrr"],
        "recall_1": scores["recall_1"],
        "examples_per_second": count(files["train"]) / seconds,
    }


def peers(python: str, model: Path, files: dict[str, Path], folder: Path, seed: int, length: int) -> dict[str, float]:
    output = process(
        python, str(HERE / "sentence_transformers_matching.py"), "--model", str(model), "--train", str(files["train"]),
        "--test", str(files["test"]), "--output", str(folder), "--seed", str(seed), "--batch_size", str(BATCH),
        "--max_length", str(length), "--lr", str(LR),
    )  # fmt: skip
    measured = json.loads(output.strip().splitlines()[-1])
    rows = [json.loads(line) for line in files["test"].read_text(encoding="utf-8").splitlines()]
    scores = scored(rows, np.load(folder / "vectors.npz"))
    return {**scores, "examples_per_second": measured["examples"] / measured["processor_seconds"]}


def count(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def scored(rows: list[dict[str, str]], vectors: Any) -> dict[str, float]:
    """MRR and recall of rows whose documents are ranked by cosine; each row has one relevant document."""
    first: dict[str, int] = {}
    for i, row in enumerate(rows):
        first.setdefault(row["document"], i)
    place = {document: d for d, document in enumerate(first)}
    scores = vectors["query"] @ vectors["document"][list(first.values())].T  # (Q, D)
    own = np.array([place[row["document"]] for row in rows])
    ranks = 1 + (scores > scores[np.arange(len(rows)), own][:, None]).sum(1)
    found = [scores_of_ranks([rank]) for rank in ranks]
    return {name: float(np.mean([each[name] for each in found])) for name in ("mrr", "recall_1")}


def process(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{command[:3]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def summary(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} ± {spread:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--model", type=Path, default=HERE.parent / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=512, help="to train on")
    parser.add_argument("--contexts", type=int, default=100, help="to test on")
    parser.add_argument("--max-length", type=int, default=256)
    asked = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {"ours": [], "sentence-transformers": []}
    with tempfile.TemporaryDirectory() as scratch:
        squad, place = asked.data / "squad", Path(scratch)
        files = {
            "train": write_rows(squad / "train.json", place / "train.jsonl", asked.pairs, only_first=True),
            "test": write_rows(squad / "validation.json", place / "test.jsonl", asked.contexts, only_first=False),
        }
        for seed in range(asked.seeds):
            for name in sorted(results, reverse=bool(seed % 2)):
                folder = place / f"{name}-{seed}"
                folder.mkdir()
                model = asked.model.resolve()
                found = (
                    ours(model, files, folder, seed, asked.max_length)
                    if name == "ours"
                    else peers(asked.peer, model, files, folder, seed, asked.max_length)
                )
                results[name].append(found)
                print(json.dumps({"system": name, "seed": seed, **found}), flush=True)
    for name, runs in results.items():
        print(name, {key: summary([run[key] for run in runs]) for key in runs[0]})
    pairs = zip(results["ours"], results["sentence-transformers"], strict=True)
    ratios = [a["examples_per_second"] / b["examples_per_second"] for a, b in pairs]
    print(f"examples per processor second: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
