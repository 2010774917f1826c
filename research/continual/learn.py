"""Learn the tasks of a sequence: a run for each strategy, order, seed and place, which is not made again."""

from __future__ import annotations

import json
from collections.abc import Sequence as Several
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from research.common.files import read_json, write_atomically
from research.config.load import load_config
from research.continual.matrix import Floats
from research.continual.sequence import Sequence, Strategy, cell_content
from research.data.source import file_sha256
from research.inference.fisher import write_fisher
from research.methods.ewc import FILE
from research.tasks.multi_recorded import write_scores
from research.tracking.run import Run
from research.training.build import build
from research.training.chain import finished

OF_THEIR_OWN = ("joint", "adapter")  # strategies whose first task is not that of the others


@dataclass(frozen=True)
class Learned:
    """One strategy, order and seed: R (T, T) in the order's own places, b (T,)."""

    strategy: str
    order: tuple[str, ...]
    seed: int
    R: Floats
    b: Floats
    runs: tuple[Path, ...]


def learn(sequence: Sequence, overrides: Several[str] = ()) -> list[Learned]:
    """Every strategy, order and seed; joint training has no order. Raises Stopped where a signal ends a cell."""
    found = []
    for seed in sequence.seeds:
        alone = {"task": {"parts": False, **sequence.experiment.get("task", {})}}
        start = cell(sequence, alone, sequence.output / "start", seed, [*overrides, "optim.max_steps=0"])
        untrained = scores_of(start)
        for number, order in enumerate(sequence.orders):
            for strategy in (each for each in sequence.strategies if each.name != "joint" or not number):
                folder = sequence.output / strategy.label.replace(", ", "-").replace(" ", "_") / f"order{number}"
                b = np.array([untrained[name] for name in order])
                found.append(learned(sequence, strategy, order, seed, folder, b, overrides))
    return found


def learned(
    sequence: Sequence, strategy: Strategy, order: tuple[str, ...], seed: int, folder: Path, b: Floats,
    overrides: Several[str],
) -> Learned:  # fmt: skip
    """The tasks one after the other; joint training is one run, whose scores are in each row of its matrix."""
    runs: list[Path] = []
    rows: list[dict[str, float]] = []
    for place, name in enumerate(order if strategy.name != "joint" else order[-1:]):
        content = cell_content(sequence, strategy, order, place, runs)
        where = folder / (f"{place}-{name}" if strategy.name != "joint" else "all")
        if place == 0 and strategy.name not in OF_THEIR_OWN:  # the first task is learned alike
            where = sequence.output / "first" / folder.name / where.name
        if "ewc" in content["methods"]:
            content["methods"]["ewc"]["sha256"] = [file_sha256(Path(run) / FILE) for run in
                                                   content["methods"]["ewc"]["runs"]]  # fmt: skip
        if strategy.name == "lwf" and place:
            recorded = where / f"seed{seed}-recorded.safetensors"
            write_scores(module_of(content, where, seed, overrides), list(order[:place]), recorded)
            content["task"]["recorded"] = str(recorded)
        run = cell(sequence, content, where, seed, overrides)
        if strategy.name in ("ewc", "online_ewc") and place + 1 < len(order):
            online = strategy.name == "online_ewc" and bool(runs)
            before = runs[-1] / FILE if online else None
            write_fisher(run, sequence.fisher_examples, before, strategy.keys.get("decay", 1.0))
        runs.append(run.path)
        rows.append(scores_of(run))
    R = np.array([[row[name] for name in order] for row in rows])
    if strategy.name == "joint":
        R = np.repeat(R, len(order), axis=0)
    if strategy.name == "adapter":  # each task has its own: later ones change nothing, and earlier ones nothing of it
        R = np.where(np.tri(len(order), dtype=bool), np.diag(R)[None], b[None])
    return Learned(strategy.label, order, seed, R, b, tuple(runs))


def write_experiment(content: dict[str, Any], folder: Path, seed: int) -> Path:
    """The experiment of a cell as a file, which `research train` takes too."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"seed{seed}.yaml"
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def cell(sequence: Sequence, content: dict[str, Any], folder: Path, seed: int, overrides: Several[str]) -> Run:
    """The finished run of a cell."""
    content = {**sequence.experiment, "tasks": list(sequence.tasks.values()), **content}
    path = write_experiment(content, folder, seed)
    config = load_config(path, [*overrides, f"seed={seed}", f"run_dir={folder / f'seed{seed}'}"])
    return finished(config, f"{folder.relative_to(sequence.output)}, seed {seed}")


def module_of(content: dict[str, Any], folder: Path, seed: int, overrides: Several[str]) -> Any:
    path = write_experiment(content, folder, seed)
    return build(load_config(path, [*overrides, f"seed={seed}", f"run_dir={folder / f'seed{seed}'}"]))


def scores_of(run: Run) -> dict[str, float]:
    """The main score of each task on test data, or on validation data where there are no others."""
    result = read_json(run.path / "result.json") or {}
    scores = result["metrics"]["test"] or result["metrics"]["validation"]
    return {name: float(scores[f"{name}.{own['main']}"]) for name, own in result["tasks"].items()}
