"""What more ranks cost and bring on this machine: steps, exchange of gradients, agreement to stop.

    python benchmarks/ranks.py --train FILE [--model FOLDER] [--ranks 1 2]

Each rank has one thread. The gradients' exchange is timed alone, on tensors of the model's size, as the most that a
step can wait for it.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors import safe_open

ROOT = Path(__file__).resolve().parent.parent
STEPS, WARMUP_STEPS = 40, 10  # the first ones are left out


def step_seconds(train: Path, model: Path, ranks: int) -> float:
    """The median step of the real command on this many ranks."""
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        experiment = Path(folder) / "ranks.yaml"
        experiment.write_text(
            json.dumps({"task": "sentiment", "model": {"name": str(model)}, "data": {"train": str(train)}})
        )
        command = [
            sys.executable, "-m", "research.cli", "train", str(experiment), f"run_dir={folder}/run",
            f"optim.max_steps={STEPS}", f"trainer.devices={ranks}", "trainer.accelerator=cpu", "wandb.mode=disabled",
            "trainer.log_every_steps=1", "trainer.progress=false",
        ]  # fmt: skip
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
        rows = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "train/loss" in row and row["step"] > WARMUP_STEPS]
    return float(statistics.median(row["time/step_seconds"] for row in rows))


def exchange(rank: int, ranks: int, port: int, sizes: list[int], target: str) -> None:
    """Time sums over all ranks of tensors of these sizes; rank zero writes the medians."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    found = []
    for size in sizes:
        values, taken = torch.zeros(size), []
        for _ in range(20):
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(values)
            taken.append(time.perf_counter() - began)
        found.append(statistics.median(taken))
    if rank == 0:
        Path(target).write_text(json.dumps(found))
    dist.destroy_process_group()


def parameters(model: Path) -> tuple[int, int]:
    """Weights of the model without its word embedding, and rows of that a step of 32 short texts uses."""
    with safe_open(model / "model.safetensors", framework="pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    table = next(shape for name, shape in shapes.items() if "word_embeddings" in name)
    return sum(torch.Size(shape).numel() for shape in shapes.values()) - table[0] * table[1], 400 * table[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, default=ROOT / "research/quickstart/sentiment/train.jsonl")
    parser.add_argument("--model", type=Path, default=ROOT / "models/all-MiniLM-L6-v2")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    layers, rows = parameters(options.model)
    for ranks in options.ranks:
        seconds = step_seconds(options.train.resolve(), options.model.resolve(), ranks)
        line = f"{ranks} ranks: {1e3 * seconds:.1f} ms a step"
        if ranks > 1:
            with socket.socket() as free, tempfile.NamedTemporaryFile() as target:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
                free.close()
                mp.spawn(exchange, (ranks, port, [layers, rows, 2], target.name), nprocs=ranks)
                gradients, embedding, flags = json.loads(Path(target.name).read_text())
            line += (
                f"; exchange alone: gradients of the layers {1e3 * gradients:.1f} ms, of embedding rows "
                f"{1e3 * embedding:.2f} ms, agreement to stop or save {1e3 * flags:.3f} ms "
                f"({flags / seconds:.2%} of a step)"
            )
        print(line, flush=True)


if __name__ == "__main__":
    main()
