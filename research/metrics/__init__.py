"""Metrics, a file each, found by their names; see research.metrics.base for what a file says."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.common.errors import UserError

if TYPE_CHECKING:
    from research.metrics.base import Metric


def metric_class(name: str) -> type[Metric]:
    """The class of a metric. Raises UserError where there is no metric of that name."""
    if name not in metric_names():
        raise UserError(f"There is no metric '{name}' in research/metrics; there are {', '.join(metric_names())}.")
    found: type[Metric] = import_module(f"research.metrics.{name}").Metric
    return found


def metric_of(settings: Mapping[str, Any]) -> Metric:
    """The metric of a predictions file, from its metadata: `scorer` and what that needs."""
    return metric_class(settings["scorer"])(settings)


def smaller_is_better(score: str, metric: str | None = None) -> bool:
    """Is a smaller value of a score better? Without `metric`, all metrics of this folder are asked by its name."""
    from research.metrics.base import LOSS

    part = score.split("/")[0]
    owners = [metric_class(name) for name in ([metric] if metric is not None else metric_names())]
    scores = [LOSS, *(each for owner in owners for each in owner.scores)]
    return any(each.smaller_is_better for each in scores if each.name == part)


@cache
def metric_names() -> tuple[str, ...]:
    """The files of this folder that hold a metric."""
    files = [path for path in sorted(Path(__file__).parent.glob("*.py")) if path.stem != "base"]
    return tuple(path.stem for path in files if "\nclass Metric(" in path.read_text(encoding="utf-8"))
