"""May a run be made longer? Where no step before its end depends on how long it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from research.config import component

KEYS = ("optim.epochs", "optim.max_steps")


def length_of(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """What `optim.epochs` and `optim.max_steps` of a resolved config are."""
    return config["optim"]["epochs"], config["optim"]["max_steps"]


def why_not_longer(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Why `new`, which differs from `old` in its length alone, cannot continue it; None where it can."""
    (old_epochs, old_steps), (epochs, steps) = length_of(old), length_of(new)
    optim = new["optim"]
    if (old_steps is None) != (steps is None):
        return "give its length by the key that it was begun with"
    if (steps or epochs) < (old_steps or old_epochs):
        return "a run is not made shorter"
    if optim["schedule"] not in ("constant", "wsd"):
        return (
            f"with optim.schedule={optim['schedule']} each step's learning rate depends on the run's length, and is 0 "
            "at its end; train the longer run from the start, or use optim.schedule=constant or wsd with "
            "optim.warmup_steps, whose runs can be continued"
        )
    if optim["warmup_steps"] is None and optim["warmup_ratio"] > 0:
        return (
            f"its warmup was optim.warmup_ratio={optim['warmup_ratio']:g} of its steps, and a longer run has a longer "
            "one; give optim.warmup_steps where a run is to be continued"
        )
    return next((f"what {part} does at a step depends on the run's length" for part in _by_length(new)), None)


def _by_length(config: Mapping[str, Any]) -> Iterator[str]:
    """The adapter and the methods of a config that act by the share of a run that is done."""
    adapter = config.get("adapter", {}).get("name", "full")
    if component.class_attribute("adapter", adapter, "Adapter", "acts_by_length"):
        yield f"adapter={adapter}"
    for name, keys in config.get("methods", {}).items():
        if component.class_attribute("method", keys.get("name", name), "Method", "acts_by_length"):
            yield f"methods.{name}"
