"""Compare two checkouts bit by bit: the same losses, weights, predictions and scores from the same experiments.

    python benchmarks/golden.py ../before            # this checkout against another one

Each experiment is trained by both checkouts on one thread, since bits differ between processors and thread counts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from page import PRECISION
from page import ROOT as HERE

MODEL = HERE / "models" / "all-MiniLM-L6-v2"
SHORT = ["optim.max_steps=12", "trainer.evaluate_every_steps=5", "trainer.log_every_steps=1", "optim.batch_size=8",
         "data.max_train_examples=120", "data.max_eval_examples=40", f"trainer.precision={PRECISION}"]  # fmt: skip
EXPERIMENTS = {
    "sentiment": [],
    "ner": ["trainer.precision=fp32"],
    "qa": ["trainer.tokens_per_microbatch=1024", "data.max_length=128", "data.stride=32"],
    "padded": ["trainer.packing=false", "trainer.sparse_embedding=false"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the other checkout")
    before = parser.parse_args().before.resolve()
    differences = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in EXPERIMENTS:
            theirs, ours = (facts(train(checkout, name, Path(folder))) for checkout in (before, HERE))
            changed = [key for key in sorted(theirs | ours) if theirs.get(key) != ours.get(key)]
            differences += len(changed)
            print(f"{name}: {'identical' if not changed else 'DIFFERENT ' + ', '.join(changed)} ({len(ours)} facts)")
    return 1 if differences else 0


def train(checkout: Path, name: str, folder: Path) -> Path:
    """Train one experiment by one checkout. Returns the run folder."""
    task = "sentiment" if name == "padded" else name
    run = folder / f"{checkout.name}-{name}"
    experiment = checkout / "experiments" / "quickstart" / f"{task}.yaml"
    keys = [f"run_dir={run}", f"model.name={MODEL}", *SHORT, *EXPERIMENTS[name]]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    environment["HF_DATASETS_CACHE"] = str(folder / f"cache-{checkout.name}")
    if (checkout / "research" / "data" / "sample.py").is_file():
        keys.append("data.sample=first")  # as before there was a choice
    command = [sys.executable, "-m", "research.cli", "train", str(experiment), *keys]
    subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True)
    return run


def facts(run: Path) -> dict[str, Any]:
    """What must not differ: each logged loss, the exported weights, the predictions, the scores."""
    import pyarrow.parquet as pq

    found: dict[str, Any] = {"weights": hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()}
    for row in rows(run):
        found |= {f"{key}@{row['step']}": value for key, value in row.items() if not key.startswith(("time/", "step"))}
    for path in sorted((run / "predictions").glob("*.parquet")):
        columns = pq.read_table(path).to_pydict()
        if "is_impossible" in columns:  # a question that does not say it was false before, and is null now
            columns["is_impossible"] = list(map(bool, columns["is_impossible"]))
        found[path.name] = repr(sorted(columns.items()))
    found["scores"] = json.loads((run / "result.json").read_text())["metrics"]
    return found


def rows(run: Path) -> Iterator[dict[str, Any]]:
    for line in (run / "metrics.jsonl").read_text().splitlines():
        yield json.loads(line)


if __name__ == "__main__":
    sys.exit(main())
