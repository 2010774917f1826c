"""A score of a metric: its name, what a paper calls it, its direction and range; as recorded in `result.json`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from research.common.errors import UserError


@dataclass(frozen=True)
class Score:
    """One score: its name in `result.json`, what a paper calls it, its direction and range."""

    name: str
    label: str  # `macro F1`
    smaller_is_better: bool = False
    low: float = 0.0
    high: float = 1.0
    is_proportion: bool = False  # the share of examples that are right


LOSS = Score("loss", "loss", smaller_is_better=True, high=math.inf)


def score_named(scores: Iterable[Score], name: str) -> Score:
    """The score of a name; `f1/PER` is the one of a class. Raises UserError for an unknown name."""
    part, _, kind = name.partition("/")
    known = [*scores]
    found = next((score for score in (*known, LOSS) if score.name == part), None)
    if found is None:
        raise UserError(f"There is no score '{name}'; there are {', '.join(score.name for score in known)}.")
    if not kind:
        return found
    label = found.label.removeprefix("macro ").removeprefix("micro ")
    return replace(found, name=name, label=f"{label} of {kind}", is_proportion=False)


def recorded(scores: Iterable[Score]) -> list[dict[str, Any]]:
    """Scores as JSON, for `result.json`; an infinite end of the range is null."""
    return [{k: None if v in (math.inf, -math.inf) else v for k, v in asdict(score).items()} for score in scores]


def from_record(content: Iterable[Mapping[str, Any]]) -> list[Score]:
    """The scores that `recorded` wrote. Raises TypeError or AttributeError for anything else."""
    ends: dict[str, Any] = {"low": -math.inf, "high": math.inf}
    return [Score(**{k: ends[k] if v is None else v for k, v in each.items()}) for each in content]
