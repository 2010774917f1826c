"""Names that keys had before: `data.stride` is now the task's own `task.stride`, `wandb.tensorboard` a logger."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("research")

MOVED = {  # old name in `data` -> the task's own key, and the default that it had for every task
    "stride": ("stride", 128),
    "max_answer_tokens": ("max_answer_tokens", 30),
    "scorer": ("rules", "squad"),
}


def with_new_names(content: dict[str, Any], task_keys: Any, origin: str, stored: bool) -> dict[str, Any]:
    """The content with old names replaced, each with a note unless it is of a `stored` run.

    The old names stood for every task: where the task has no such key, it is dropped.
    """
    data = content.get("data")
    if not isinstance(data, dict) or not MOVED.keys() & data.keys():
        return content
    data, task = dict(data), dict(content.get("task") or {})
    for old, (new, default) in MOVED.items():
        if old not in data:
            continue
        value = data.pop(old)
        if hasattr(task_keys, new):
            task.setdefault(new, value)
            if not stored:
                log.warning("%s: data.%s is now task.%s; the old name still works.", origin, old, new)
        elif not stored and value != default:
            log.warning("%s: data.%s has no effect on this task; remove it.", origin, old)
    return {**content, "data": data, "task": task}


def with_logger(content: dict[str, Any]) -> dict[str, Any]:
    """The content with `wandb.tensorboard` as the logger that it stood for."""
    wandb = content.get("wandb")
    if not isinstance(wandb, dict) or "tensorboard" not in wandb:
        return content
    others = {name: value for name, value in wandb.items() if name != "tensorboard"}
    is_on = str(wandb["tensorboard"]).lower() == "true"
    loggers = {"loggers": {"tensorboard": {}, **(content.get("loggers") or {})}} if is_on else {}
    return {**content, "wandb": others, **loggers}


def with_augment(content: dict[str, Any]) -> dict[str, Any]:
    """The content with `data.augment`, as one may write it too, as the section of its own that it is."""
    data = content.get("data")
    if not isinstance(data, dict) or "augment" not in data:
        return content
    others = {name: value for name, value in data.items() if name != "augment"}
    return {**content, "data": others, "augment": data["augment"]}
