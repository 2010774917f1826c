"""Hyperparameter searches, from the folders of sweeps: what was asked (sweep.yaml) and what came of each trial.

A trial is described by its runs, which are ordinary run folders, and its state and score from the sweep's table of
trials; the study's storage is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from research.common.errors import UserError
from research.metrics.score import Score
from research.report.deciding_settings import flat
from research.report.records import Record, score_of
from research.report.settings import value_text

STATES = {"complete": "finished", "running": "unfinished", "waiting": "unfinished", "interrupted": "unfinished"}


@dataclass(frozen=True)
class Trial:
    """One point of the search space, run once or with several seeds."""

    number: int
    state: str  # finished, unfinished, pruned or failed
    parameters: dict[str, Any]  # None: searched only where other parameters have other values
    runs: list[Record]
    score: float | None  # mean validation score over the seeds; of a pruned trial the last one reported


@dataclass(frozen=True)
class Search:
    """One sweep's folder."""

    path: Path
    asked: dict[str, Any]  # sweep.yaml
    metric: str  # a validation score
    trials: list[Trial]  # those with runs among the records, by number

    @property
    def name(self) -> str:
        return str(self.asked.get("name") or self.path.name)

    @property
    def score(self) -> Score:
        """What the metric says of the searched score."""
        return score_of([run for trial in self.trials for run in trial.runs], self.metric)

    @property
    def maximises(self) -> bool:
        return not self.score.smaller_is_better

    @property
    def sampler(self) -> str:
        return _name(self.asked.get("sampler"))

    @property
    def pruner(self) -> str:
        return _name(self.asked.get("pruner"))

    @cached_property
    def space(self) -> dict[str, dict[str, Any]]:
        """Config key -> `low`, `high`, `log`, `step`, or `choices`; and `when` it is searched."""
        return dict(self.asked.get("space") or {})

    @property
    def best(self) -> Trial | None:
        """The finished trial with the best score."""
        done = [trial for trial in self.trials if trial.state == "finished" and trial.score is not None]
        sign = 1 if self.maximises else -1
        return max(done, key=lambda trial: sign * (trial.score or 0.0), default=None)


def find_searches(records: Sequence[Record]) -> list[Search]:
    """The searches that the records are trials of, in the order of the records."""
    by_folder: dict[Path, list[Record]] = {}
    for record in records:
        if record.sweep is not None:
            by_folder.setdefault(record.sweep, []).append(record)
    return [read_search(folder, runs) for folder, runs in by_folder.items()]


def read_search(folder: Path, runs: Sequence[Record]) -> Search:
    """One search with the trials of these runs. Raises UserError for a sweep file that is no YAML."""
    asked = read_sweep_file(folder)
    metric = str(asked.get("metric") or runs[0].chosen_by).removeprefix("validation/")
    table = folder / "trials.parquet"
    recorded = {row["number"]: row for row in pq.read_table(table).to_pylist()} if table.is_file() else {}
    members: dict[int, list[Record]] = {}
    for run in runs:
        members.setdefault(int(run.path.absolute().parent.name), []).append(run)
    search = Search(folder, asked, metric, [])
    for number, trial_runs in sorted(members.items()):
        search.trials.append(_trial(search, number, trial_runs, recorded.get(number, {})))
    return search


def read_sweep_file(folder: Path) -> dict[str, Any]:
    """The sweep file that a search's folder keeps. Raises UserError where it is no YAML."""
    path = folder / "sweep.yaml"
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def has_choices_alone(folder: Path) -> bool:
    """Does a sweep search nothing but lists of values, so that its trials are the rows of an ablation?"""
    space = (read_sweep_file(folder).get("space") or {}).values()
    return bool(space) and all(asked.get("choices") is not None for asked in space)


def _trial(search: Search, number: int, runs: list[Record], recorded: Mapping[str, Any]) -> Trial:
    settings = flat(runs[0].config)
    parameters: dict[str, Any] = {}
    for key, asked in search.space.items():
        parameters[key] = settings.get(key) if _is_searched(asked, settings) else None
    state = str(recorded.get("state") or _state(runs))
    score = recorded.get("score")
    if score is None and state != "failed":
        scores = [_last_score(run, search.metric) for run in runs]
        score = float(np.mean(scores)) if None not in scores else None  # type: ignore[arg-type]
    return Trial(number, STATES.get(state, state), parameters, runs, score)


def _is_searched(asked: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Do the trial's values meet the parameter's `when`?"""
    conditions = (asked.get("when") or {}).items()
    return all(settings.get(key) in (wanted if isinstance(wanted, list) else [wanted]) for key, wanted in conditions)


def _state(runs: Sequence[Record]) -> str:
    states = {run.status for run in runs}
    return next((state for state in ("failed", "pruned", "unfinished") if state in states), "finished")


def _last_score(run: Record, metric: str) -> float | None:
    """The validation score of a finished run; the last one that another run reported."""
    if metric in run.scores("validation"):
        return run.scores("validation")[metric]
    key = f"{run.watched_split}/{metric}"
    recorded = [row[key] for row in run.metrics() if key in row]
    return recorded[-1] if recorded else None


def bounds(asked: Mapping[str, Any]) -> str:
    """`1e-5 to 1e-4, log scale`, or `{8, 16, 32}`; and under which condition."""
    when = [f"{key} is {value_text(value)}" for key, value in (asked.get("when") or {}).items()]
    condition = f", where {' and '.join(when)}" if when else ""
    if asked.get("choices") is not None:
        return "{" + ", ".join(map(value_text, asked["choices"])) + "}" + condition
    scale = ", log scale" if asked.get("log") else ""
    step = f", in steps of {value_text(asked['step'])}" if asked.get("step") else ""
    return f"{value_text(asked.get('low'))} to {value_text(asked.get('high'))}{scale}{step}{condition}"


def _name(part: Any) -> str:
    return str((part or {}).get("name", "none"))
