"""Metrics, a file each, found by their names; see research.metrics.base for what a file says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from research.common.errors import UserError
from research.config import component

if TYPE_CHECKING:
    from research.metrics.base import BaseMetric


def metric_class(name: str) -> type[BaseMetric]:
    """The class of a metric. Raises UserError where there is no metric of that name."""
    found: type[BaseMetric] = component.load("metric", name).Metric
    return found


def metric_of(settings: Mapping[str, Any], own_files: bool = True) -> BaseMetric:
    """The metric of a predictions file, from its metadata: `scorer` and what that needs.

    Without `own_files`, one that is named by the path of a file is refused: a received run must not have code executed.
    """
    name = settings["scorer"]
    if not own_files and component.is_path(name):
        raise UserError(
            f"The predictions are scored by {name}, a file whose code a report does not run; put it where Python finds "
            "it and name it in the task by its module, as in my_package.my_metric."
        )
    return metric_class(name)(settings)


def score_labels(name: str | None) -> dict[str, str]:
    """What a paper calls each score of a metric; nothing for none, or one that is a file of the user's."""
    if name is None or component.is_path(name):
        return {}
    return {score.name: score.label for score in metric_class(name).scores}


def smaller_is_better(score: str, metric: str | None = None) -> bool:
    """Is a smaller value of a score better? Without `metric`, all metrics of this folder are asked by its name."""
    from research.metrics.base import LOSS

    part = score.split("/")[0]
    owners = [metric_class(name) for name in ([metric] if metric is not None else component.names("metric"))]
    scores = [LOSS, *(each for owner in owners for each in owner.scores)]
    return any(each.smaller_is_better for each in scores if each.name == part)
