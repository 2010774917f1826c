"""A sequence of tasks as its YAML file says it, and the experiment of each of its cells."""

from __future__ import annotations

import os
from collections.abc import Sequence as Several
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from research.common.errors import UserError
from research.config.joint import joint_content
from research.config.load import load_config
from research.config.parse import read_yaml

KEYS = ("tasks", "strategies", "seeds", "orders", "output", "experiment", "fisher_examples")
# strategy -> its keys, with their defaults
STRATEGIES: dict[str, dict[str, float]] = {
    "naive": {}, "joint": {}, "replay": {"per_class": 20, "alpha": 0.5}, "ewc": {"strength": 1000.0},
    "online_ewc": {"strength": 1000.0, "decay": 1.0}, "lwf": {"strength": 1.0, "temperature": 2.0}, "adapter": {},
}  # fmt: skip


@dataclass(frozen=True)
class Strategy:
    """How a task is learned after others; `label` names it in tables: `ewc, strength 100`."""

    name: str
    keys: dict[str, float]
    label: str


@dataclass(frozen=True)
class Sequence:
    """Tasks by name and file, in the file's order; `orders` and `seeds` repeat each strategy."""

    tasks: dict[str, str]
    mains: dict[str, str]  # the main score of each
    strategies: tuple[Strategy, ...]
    seeds: tuple[int, ...]
    orders: tuple[tuple[str, ...], ...]
    output: Path
    experiment: dict[str, Any]  # what every cell says
    fisher_examples: int


def read_sequence(path: Path) -> Sequence:
    """Read a sequence. Raises UserError for each mistake, with the file."""
    content = read_yaml(path, what="sequence")
    if unknown := [key for key in content if key not in KEYS]:
        raise UserError(f"{path}: unknown key '{unknown[0]}'; the keys are {', '.join(KEYS)}.")
    files = content.get("tasks")
    if not isinstance(files, list) or len(files) < 2:
        raise UserError(f"{path}: tasks must be a list of two experiments or more, as in tasks: [a.yaml, b.yaml].")
    joint = joint_content([{"tasks": files}], path.parent, load_config)["task"]["tasks"]
    found = {Path(str(file)).stem: str(_found(str(file), path.parent)) for file in files}
    seeds = content.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise UserError(f"{path}: seeds must be a list of integers, as in seeds: [0, 1, 2].")
    return Sequence(
        tasks=found,
        mains={name: main_score(own) for name, own in joint.items()},
        strategies=tuple(_strategy(given, path) for given in content.get("strategies", ["naive"])),
        seeds=tuple(seeds),
        orders=_orders(content.get("orders", 1), list(found), path),
        output=Path(os.path.abspath(content.get("output") or Path("runs") / "continual" / path.stem)),
        experiment=dict(content.get("experiment") or {}),
        fisher_examples=int(content.get("fisher_examples", 1000)),
    )


def main_score(own: dict[str, Any]) -> str:
    """The main score of a task of a joint experiment."""
    from research.config import component

    given = own["trainer"]["monitor"]
    return str(given or component.load("task", own["task"]["name"]).Module.monitor)


def _found(name: str, folder: Path) -> Path:
    return next(base / name for base in (folder, Path.cwd()) if (base / name).is_file()).resolve()


def _strategy(given: Any, path: Path) -> Strategy:
    """`ewc`, or `{ewc: {strength: 100}}`."""
    own: Any = {}
    name = given
    if isinstance(given, dict) and len(given) == 1:
        [(name, own)] = given.items()
    if not isinstance(name, str) or name not in STRATEGIES:
        raise UserError(f"{path}: strategy '{name}' must be one of {', '.join(STRATEGIES)}.")
    own = {key: float(value) for key, value in (own or {}).items()}
    if unknown := [key for key in own if key not in STRATEGIES[name]]:
        known = ", ".join(STRATEGIES[name]) or "none"
        raise UserError(f"{path}: strategy '{name}' has no key '{unknown[0]}'; its keys are {known}.")
    label = ", ".join([name, *(f"{key} {value:g}" for key, value in own.items())])
    return Strategy(name, {**STRATEGIES[name], **own}, label.replace("_", " "))


def _orders(given: Any, tasks: list[str], path: Path) -> tuple[tuple[str, ...], ...]:
    """Orders that are given, or so many: the file's own first, then others drawn."""
    if isinstance(given, list):
        for order in given:
            if not isinstance(order, list) or sorted(map(str, order)) != sorted(tasks):
                raise UserError(f"{path}: orders: {order} must name each of {', '.join(tasks)} once.")
        return tuple(tuple(map(str, order)) for order in given)
    if type(given) is not int or given < 1:
        raise UserError(f"{path}: orders must be a number of them, or a list of lists of task names.")
    found, rng = [tuple(tasks)], np.random.default_rng(0)
    for _ in range(1000):
        if len(found) == given:
            return tuple(found)
        if (order := tuple(tasks[i] for i in rng.permutation(len(tasks)))) not in found:
            found.append(order)
    raise UserError(f"{path}: orders: {given} are more than {len(tasks)} tasks have; give fewer.")


def cell_content(
    sequence: Sequence, strategy: Strategy, order: Several[str], place: int, before: Several[Path]
) -> dict[str, Any]:
    """The experiment that learns the task at a place of an order; `before` are the runs of the earlier places."""
    now, earlier = order[place], order[:place]
    content = {key: dict(value) if isinstance(value, dict) else value for key, value in sequence.experiment.items()}
    task: dict[str, Any] = {"parts": False, **content.get("task", {}), "train": [now]}
    trainer = {"monitor": f"{now}.{sequence.mains[now]}", **content.get("trainer", {})}
    methods = dict(content.get("methods", {}))
    if strategy.name == "joint":
        task["train"], trainer["monitor"] = list(order), "mean"
    if before and strategy.name not in ("joint", "adapter"):
        content["model"] = {**content.get("model", {}), "name": str(before[-1])}
    if strategy.name == "adapter":
        content.setdefault("adapter", "lora")
    if strategy.name == "replay" and earlier:
        task |= {"memory": dict.fromkeys(earlier, int(strategy.keys["per_class"])), "alpha": strategy.keys["alpha"]}
    if strategy.name in ("ewc", "online_ewc") and earlier:
        held = before if strategy.name == "ewc" else before[-1:]
        methods["ewc"] = {"strength": strategy.keys["strength"], "runs": [str(run) for run in held]}
    if strategy.name == "lwf" and earlier:
        task |= {"follow": strategy.keys["strength"], "temperature": strategy.keys["temperature"]}
    return {**content, "tasks": list(sequence.tasks.values()), "task": task, "trainer": trainer, "methods": methods}
