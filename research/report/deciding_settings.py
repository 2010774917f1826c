"""The config keys that decide a run's numbers, flat, but those in which the runs of one system differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from research.config.schema import Config
from research.config.tree import all_keys, result_keys

SEEDS = ("seed", "seed_init", "seed_order")
REPEATED = (*SEEDS, "data.fold", "data.shots_seed")  # what differs between the runs of one system
_LEAVES = frozenset(all_keys(Config()))


def deciding_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config that decide the numbers, dotted, but the seeds, the fold and the few-shot sample."""
    return {
        key: value
        for key, value in flat(result_keys(dict(config))).items()
        if key not in REPEATED and not (key.endswith(".name") and key.split(".")[-2] == value)  # methods.r_drop.name
    }


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys dotted; a mapping that is itself a value (`data.columns`) stays one value."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and prefix + key not in _LEAVES:
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves
