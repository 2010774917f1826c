"""A key of the configuration: its default, help text, rules, and whether it decides the numbers.

`rate: float = key(0.1, "share of tokens that are masked", inside("(0, 1)"))`
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import Field, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What every value of a key must fulfil (null is exempt), and how to say it."""

    holds: Callable[[Any], bool]
    text: str  # completes "optim.lr=0 ..."


def key(default: Any, help: str, *rules: Rule, decides: bool = True, path: bool = False) -> Any:
    """A documented dataclass field. `decides`: do a run's numbers depend on it, or only its place, layout and speed?
    `path`: of a file or folder, which is looked up from here, then from the experiment's folder."""
    metadata = {"help": help, "rules": rules, "decides": decides, "path": path}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def broken_rules(f: Field[Any], value: Any) -> list[str]:
    """What the rules of a field say of a value that breaks them."""
    if value is None or f.metadata is None:
        return []
    return [rule.text for rule in f.metadata.get("rules", ()) if not rule.holds(value)]


def at_least(least: float, unit: str = "") -> Rule:
    text = "must be 0 or more" if least == 0 else f"must be at least {least}"
    return Rule(lambda v: least <= v < math.inf, f"{text} {unit}".rstrip())


def above(least: float, hint: str = "") -> Rule:
    return Rule(lambda v: least < v < math.inf, f"must be above {least}{hint}")


def inside(interval: str) -> Rule:
    """An interval in the usual notation: [ and ] include their end, ( and ) do not."""
    low, high = (float(end) for end in interval[1:-1].split(","))

    def holds(value: float) -> bool:
        over = low <= value if interval[0] == "[" else low < value
        return over and (value <= high if interval[-1] == "]" else value < high)

    return Rule(holds, f"must be in {interval}")
