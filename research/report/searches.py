"""Hyperparameter searches, from the folders of sweeps: what was asked (sweep.yaml) and what came of each trial.

A trial is told from its runs, which are ordinary run folders; the study's storage is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from research.errors import UserError
from research.report.groups import flat, shown
from research.report.records import Record, Status


@dataclass(frozen=True)
class Trial:
    """One point of the search space, run once or with several seeds."""

    number: int
    parameters: dict[str, Any]
    runs: list[Record]
    score: float | None  # mean validation score over the seeds; of a pruned trial the last one told; None if failed

    @property
    def state(self) -> Status:
        states = {run.status for run in self.runs}
        return next((s for s in ("failed", "pruned", "unfinished") if s in states), "finished")  # type: ignore[return-value]


@dataclass(frozen=True)
class Search:
    """One sweep's folder."""

    path: Path
    asked: dict[str, Any]  # sweep.yaml
    trials: list[Trial]  # by number

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def metric(self) -> str:
        return str(self.asked.get("metric") or self.trials[0].runs[0].monitor).removeprefix("validation/")

    @property
    def maximises(self) -> bool:
        return str(self.asked.get("direction", "maximize")).startswith("max")

    @property
    def sampler(self) -> str:
        return _named(self.asked.get("sampler")) or "not told"

    @property
    def pruner(self) -> str:
        return _named(self.asked.get("pruner")) or "none"

    @cached_property
    def space(self) -> dict[str, dict[str, Any]]:
        """Config key -> its bounds as the sweep file has them."""
        found = self.asked.get("space") or {}
        return {key: value if isinstance(value, dict) else {"choices": value} for key, value in found.items()}

    @property
    def best(self) -> Trial | None:
        """The finished trial with the best score."""
        done = [trial for trial in self.trials if trial.state == "finished" and trial.score is not None]
        sign = 1 if self.maximises else -1
        return max(done, key=lambda trial: sign * (trial.score or 0.0), default=None)


def searches(records: Sequence[Record]) -> list[Search]:
    """The searches that the records are trials of, in the order of the records."""
    by_folder: dict[Path, list[Record]] = {}
    for record in records:
        if record.sweep is not None:
            by_folder.setdefault(record.sweep, []).append(record)
    return [read(folder, runs) for folder, runs in by_folder.items()]


def read(folder: Path, runs: Sequence[Record]) -> Search:
    """One search with the trials of these runs."""
    path = folder / "sweep.yaml"
    try:
        asked = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    search = Search(folder, asked if isinstance(asked, dict) else {}, [])
    by_trial: dict[int, list[Record]] = {}
    for run in runs:
        by_trial.setdefault(int(run.path.absolute().parent.name), []).append(run)
    for number, members in sorted(by_trial.items()):
        settings = flat(members[0].config)
        parameters = {key: settings.get(key) for key in search.space}
        scores = [last_score(run, str(search.asked.get("metric") or run.monitor)) for run in members]
        known = [score for score in scores if score is not None]
        score = float(np.mean(known)) if known and len(known) == len(scores) else None
        search.trials.append(Trial(number, parameters, members, score))
    return search


def last_score(run: Record, metric: str) -> float | None:
    """The validation score of a finished run; the last one a pruned run told; None of a failed one."""
    metric = metric.removeprefix("validation/")
    if run.status == "failed":
        return None
    if metric in run.scores("validation"):
        return run.scores("validation")[metric]
    told = [row[f"validation/{metric}"] for row in run.metrics() if f"validation/{metric}" in row]
    return told[-1] if told else None


def bounds(space: Mapping[str, Any]) -> str:
    """`1e-5 to 1e-4, log scale`, or `{8, 16, 32}`."""
    if "choices" in space:
        return "{" + ", ".join(shown(choice) for choice in space["choices"]) + "}"
    scale = ", log scale" if space.get("log") else ""
    step = f", in steps of {shown(space['step'])}" if space.get("step") else ""
    return f"{shown(space.get('low'))} to {shown(space.get('high'))}{scale}{step}"


def _named(value: Any) -> str:
    """The name of a part of the sweep file, given alone or with its settings."""
    if isinstance(value, Mapping):
        value = value.get("name") or value.get("kind") or next(iter(value), "")
    return "" if value is None else str(value)
