"""Metrics, a file each, found by their names; see research.metrics.base for what a file says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
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


def resolved(metric: str, task_file: Path) -> str:
    """A metric's name; the path of a user's file is looked up from the file of the task that names it."""
    return str((task_file.parent / metric).resolve()) if component.is_path(metric) else metric


def score_labels(recorded: Mapping[str, Any] | None) -> dict[str, str]:
    """What a paper calls each score of a metric, from what `result.json` holds of it; nothing for none."""
    if recorded is None:
        return {}
    if "scores" in recorded:
        return {score["name"]: score["label"] for score in recorded["scores"]}
    if component.is_path(recorded["name"]):
        return {}
    return {score.name: score.label for score in metric_class(recorded["name"]).scores}


def smaller_is_better(score: str, metric: str | None) -> bool:
    """Is a smaller value of a score of this metric better? Where the metric is None, unknown, all of this folder count.

    Imports the metric, a user's file too: of a run that was received, ask its record.
    """
    from research.metrics.score import LOSS

    part = score.split("/")[0]
    owners = [metric_class(name) for name in ([metric] if metric is not None else component.names("metric"))]
    scores = [LOSS, *(each for owner in owners for each in owner.scores)]
    return any(each.smaller_is_better for each in scores if each.name == part)
