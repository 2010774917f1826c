"""Several experiments as one: `tasks: [a.yaml, b.yaml]` becomes `task: multi` with the task and data of each file.

What belongs to a task is its file's: `task`, `data`, and what of `optim` shapes its loss. All else, the model apart, is
said by the experiment that names them. The resolved config holds all of it: the files are not needed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from research.common.errors import UserError
from research.config.parse import Text, yaml_value
from research.config.schema import Config

OF_THE_LOSS = ("label_smoothing", "class_weights", "balance_classes")  # keys of `optim` that a task keeps
OF_ALL = ("num_workers", "title")  # keys of `data` that are not a task's
SPLITS = ("train", "validation", "test")


def joint_content(contents: Sequence[dict[str, Any]], folder: Path, load: Callable[[Path], Config]) -> dict[str, Any]:
    """Take `tasks` out of the contents, and return what the files it names say; nothing where no content has it.

    Raises UserError for a file that is missing, two of one name, and tasks of different encoders or splits.
    """
    named = [content.pop("tasks") for content in contents if "tasks" in content]
    if not named:
        return {}
    tasks = named[-1]
    if isinstance(tasks, Text):
        tasks = yaml_value(tasks, "tasks")
    if not isinstance(tasks, list) or not tasks:
        raise UserError("tasks must be a list of experiments, as in tasks: [ner.yaml, sst2.yaml].")
    found: dict[str, Config] = {}
    for name in map(str, tasks):
        path = next((base / name for base in (folder, Path.cwd()) if (base / name).is_file()), None)
        if path is None:
            raise UserError(f"tasks names {name}, which is no file in {folder} or {Path.cwd()}.")
        if path.stem in found:
            raise UserError(f"tasks names two files called {path.stem}; a task is called by its file: rename one.")
        if set(path.stem) & set("./"):
            raise UserError(f"tasks: {name}: a task is called by its file, whose name must have no further dot.")
        found[path.stem] = load(path)
    _refuse_keys_of_tasks(contents)
    model = {key: value for content in contents for key, value in (content.get("model") or {}).items()}
    _refuse_differences(found, "name" in model)
    first = next(iter(found.values()))
    splits = {key: getattr(first.data, key) for key in ("name", *SPLITS)}
    return {
        "task": {"name": "multi", "tasks": {name: of_task(config) for name, config in found.items()}},
        "model": {"name": first.model.name, "revision": first.model.revision} if "name" not in model else {},
        "data": {**splits, "title": " + ".join(found), "max_length": max(c.data.max_length for c in found.values())},
    }


def of_task(config: Config) -> dict[str, Any]:
    """What of an experiment belongs to its task."""
    optim = asdict(config.optim)
    return {
        "task": asdict(config.task),
        "data": asdict(config.data),
        "optim": {key: optim[key] for key in OF_THE_LOSS},
        "trainer": {"monitor": config.trainer.monitor},
    }


def _refuse_keys_of_tasks(contents: Sequence[dict[str, Any]]) -> None:
    for content in contents:
        keys = [f"data.{key}" for key in content.get("data") or {} if key not in OF_ALL]
        keys += [f"optim.{key}" for key in content.get("optim") or {} if key in OF_THE_LOSS]
        if keys:
            raise UserError(f"{', '.join(keys)}: with tasks, this is said by the file of each task.")


def _refuse_differences(found: dict[str, Config], model_given: bool) -> None:
    encoders = {name: (config.model.name, config.model.revision) for name, config in found.items()}
    if len(set(encoders.values())) > 1 and not model_given:
        said = ", ".join(f"{name} has {model}" for name, (model, _) in encoders.items())
        raise UserError(f"tasks share one encoder, but {said}; name the same in each file, or give model.name here.")
    splits = {name: tuple(s for s in SPLITS if getattr(config.data, s)) for name, config in found.items()}
    if len(set(splits.values())) > 1:
        said = ", ".join(f"{name} has {' and '.join(each)}" for name, each in splits.items())
        raise UserError(f"tasks are trained, validated and tested together, but {said}; give all of them the same.")
