"""Runs as the cells of a table: systems in rows, data sets in columns, seeds inside a cell.

A group is what a cell is computed from: runs on one data set that differ in nothing that decides the numbers but
the seeds. Anything else is refused with the difference, so a mean never mixes settings.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from research.common.errors import UserError
from research.config.schema import all_keys, result_keys
from research.metrics import SMALLER_IS_BETTER
from research.report.records import Record, status_counts

SEEDS = ("seed", "seed_init", "seed_order")
DATA_KEYS = (
    "task",
    *(
        f"data.{key}"
        for key in ["name", "config", "revision", "train", "validation", "test", "columns", "labels", "scorer"]
    ),
)


@dataclass(frozen=True)
class Group:
    """The runs of one system on one data set."""

    settings: dict[str, Any]  # config key -> value: what names the system
    task: str
    data_set: str
    metric: str
    runs: list[Record]  # finished, by seed
    others: list[Record]  # unfinished, pruned and failed ones
    missing: list[int] = field(default_factory=list)  # seeds that other groups of the table have

    @property
    def system(self) -> str:
        """What figures and sentences call it: `lr 3e-5, dropout 0.1`."""
        return label(self.settings)

    @property
    def split(self) -> str:
        """The split whose scores are reported: `validation` where the runs name no test data."""
        return "test" if (self.runs or self.others)[0].config["data"]["test"] else "validation"

    def scores(self, split: str, metric: str | None = None) -> np.ndarray:
        """One score per run. Raises UserError naming the run that lacks the metric, and what it has."""
        metric = metric or self.metric
        for run in self.runs:
            if metric not in run.scores(split):
                held = ", ".join(name for name in run.scores(split) if "/" not in name)
                raise UserError(
                    f"The run {run.path} has no {split} score '{metric}'; "
                    f"{f'it has {held}' if held else f'it was not scored on {split} data'}."
                )
        return np.array([run.scores(split)[metric] for run in self.runs])


@dataclass(frozen=True)
class Grid:
    """Groups of all systems (rows) and data sets (columns), and what their runs share."""

    groups: list[Group]
    by: list[str]  # config keys whose values name the systems
    constant: dict[str, Any]  # the same in all runs
    by_data_set: dict[str, dict[str, Any]]  # the same in all runs on a data set, and different between data sets

    @property
    def systems(self) -> list[dict[str, Any]]:
        """The settings of the rows, each once."""
        return list({_text(group.settings): group.settings for group in self.groups}.values())

    @property
    def data_sets(self) -> list[str]:
        return list(dict.fromkeys(group.data_set for group in self.groups))

    def find(self, settings: Mapping[str, Any], data_set: str) -> Group | None:
        return next((g for g in self.groups if g.settings == settings and g.data_set == data_set), None)


def group(records: Sequence[Record], by: Sequence[str] | None = None, metric: str | None = None) -> Grid:
    """Group runs by the config keys `by`: by default, all keys that differ between runs on one data set.

    Trials of a sweep stand beside the table, not in it; where there is nothing else, the best trial of each sweep
    does. `metric` is the score of the table: by default the one that chose each run's checkpoint.

    Raises UserError for unknown keys, for no finished run, and for groups whose runs differ in more than the seed.
    """
    records = shown_records(records)
    finished = [record for record in records if record.status == "finished"]
    if not finished:
        counts = ", ".join(f"{count} {state}" for state, count in status_counts(records).items())
        raise UserError(f"None of the runs is finished ({counts}); their training commands go on where they stopped.")
    settings = {id(record): deciding(record.config) for record in records}
    varying = differing(records)
    keys = list(by) if by is not None else [key for key in varying if key not in DATA_KEYS]
    keys = keys or ["model.name"]
    refuse_unknown(keys, settings.values())
    cells: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        chosen = {key: settings[id(record)].get(key) for key in keys}
        cells.setdefault((_text(chosen), record.data_set), []).append(record)
    groups = [_make(json.loads(chosen), members, metric) for (chosen, _), members in cells.items()]
    data_sets = list(dict.fromkeys(record.data_set for record in records))
    groups.sort(key=lambda g: ([sortable(value) for value in g.settings.values()], data_sets.index(g.data_set)))
    refuse_mixed(groups)
    constant, by_data_set = shared_settings(records, {*keys, *varying})
    return Grid(_with_missing(groups), keys, constant, by_data_set)


def shown_records(records: Sequence[Record]) -> list[Record]:
    """The records without the trials of sweeps; where there are only trials, those of the best of each sweep."""
    sweeps: dict[Path, list[Record]] = {}
    for record in records:
        if record.sweep is not None:
            sweeps.setdefault(record.sweep, []).append(record)
    alone = [record for record in records if record.sweep is None]
    return alone or [record for trials in sweeps.values() for record in best_trial(trials)]


def best_trial(trials: Sequence[Record]) -> list[Record]:
    """The runs of the trial (one folder) with the best mean validation score; all runs where none is finished."""
    by_trial: dict[Path, list[Record]] = {}
    for record in trials:
        by_trial.setdefault(record.path.parent, []).append(record)

    def mean(runs: list[Record]) -> float:
        scores = [run.scores("validation").get(run.chosen_by) for run in runs]
        known = [score for score in scores if score is not None]
        sign = -1 if runs[0].chosen_by in SMALLER_IS_BETTER else 1
        return sign * float(np.mean(known)) if len(known) == len(runs) else -np.inf

    best = max(by_trial.values(), key=mean)
    return best if mean(best) > -np.inf else list(trials)


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config that decide the numbers, dotted, but the seeds."""
    return {key: value for key, value in flat(result_keys(dict(config))).items() if key not in SEEDS}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys dotted; a mapping that is itself a value (`data.columns`) stays whole."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and prefix + key not in _LEAVES:
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


_LEAVES = frozenset(all_keys())


def differing(records: Sequence[Record]) -> list[str]:
    """The keys in which runs on one data set differ, other than the seeds, in the order of the config."""
    first: dict[str, dict[str, Any]] = {}
    found: set[str] = set()
    order: dict[str, None] = {}
    for record in records:
        settings = deciding(record.config)
        order |= dict.fromkeys(settings)
        other = first.setdefault(record.data_set, settings)
        found |= {key for key in {*settings, *other} if settings.get(key) != other.get(key)}
    return [key for key in order if key in found]


def refuse_unknown(keys: Iterable[str], settings: Iterable[Mapping[str, Any]]) -> None:
    known = {key for each in settings for key in each}
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UserError(f"Runs cannot be grouped by '{key}': it is no config key that decides a score.{hint}")


def _make(settings: dict[str, Any], members: list[Record], metric: str | None) -> Group:
    """One group. Raises UserError where its runs differ in anything but the seeds, or are two of one seed."""
    runs = sorted((run for run in members if run.status == "finished"), key=_seeds)
    place = f"{label(settings) or 'the one system'} on {members[0].data_set}"
    refuse_differences(members, place)
    for run, next_run in pairwise(runs):
        if _seeds(run) == _seeds(next_run):
            raise UserError(
                f"{run.path} and {next_run.path} are the same run twice (seed {run.seed}, {place}); leave one out."
            )
    others = [run for run in members if run.status != "finished"]
    metrics = sorted({run.monitor for run in runs})
    if metric is None and len(metrics) > 1:
        raise UserError(f"The runs of {place} were chosen by different scores ({', '.join(metrics)}); name one metric.")
    chosen = metric or (metrics[0] if metrics else "")
    return Group(settings, members[0].task, members[0].data_set, chosen, runs, others)


def refuse_differences(members: Sequence[Record], place: str) -> None:
    """Raise UserError, naming the difference, unless the runs ask for the same and share data and weights."""
    wanted = [{**deciding(run.config), **_foundations(run)} for run in members]
    lines = []
    for key in dict.fromkeys(key for each in wanted for key in each):
        values = {_text(each[key]): each[key] for each in wanted if key in each}
        if len(values) > 1:
            lines.append(f"{key}: {' | '.join(shown(value) for value in values.values())}")
    if lines:
        raise UserError(
            f"The {len(members)} runs of {place} differ in more than the seed: {'; '.join(lines)}. "
            "Group by that too (--by), or leave runs out."
        )


def _foundations(run: Record) -> dict[str, Any]:
    """What a run stands on beside its config. A run that never began to train has not recorded any."""
    found: dict[str, Any] = {}
    for split in ("train", "validation", "test"):
        fingerprint = run.fingerprint(split)
        if fingerprint is not None:
            found[f"the {split} examples"] = f"{fingerprint[0][:12]}… ({fingerprint[1]:,})"
    if run.provenance.get("weights"):
        found["the pretrained weights"] = {name: sha[:12] for name, sha in run.provenance["weights"].items()}
    return found


def refuse_mixed(groups: Sequence[Group]) -> None:
    """Raise UserError where systems of one column were scored on different tasks, test sets or metrics."""
    first: dict[str, tuple[Group, Record]] = {}
    for each in groups:
        for run in each.runs:
            other_group, other = first.setdefault(each.data_set, (each, run))
            if other.task != run.task:
                raise UserError(
                    f"{other.path} is a run of task {other.task} and {run.path} one of task {run.task}, both on "
                    f"'{each.data_set}'; their scores do not compare: report them apart."
                )
            if other_group.split != each.split:
                raise UserError(
                    f"On '{each.data_set}', {other.path} was scored on its {other_group.split} data and {run.path} on "
                    f"its {each.split} data; report them apart."
                )
            if other_group.metric != each.metric:
                raise UserError(
                    f"On '{each.data_set}', {other.path} was chosen by {other_group.metric} and {run.path} by "
                    f"{each.metric}; name one metric for all (--metric)."
                )
            for split in ("test", "validation"):
                theirs, ours = other.fingerprint(split), run.fingerprint(split)
                if theirs is not None and ours is not None and theirs != ours:
                    raise UserError(
                        f"{other.path} and {run.path} were scored on different {split} examples of "
                        f"'{each.data_set}' ({theirs[1]:,} and {ours[1]:,} examples, sha256 {theirs[0][:12]}… and "
                        f"{ours[0][:12]}…): report them apart, or evaluate one again."
                    )


def _with_missing(groups: Sequence[Group]) -> list[Group]:
    """The groups, each told the seeds that others have and it neither finished nor began."""
    seeds = sorted({run.seed for each in groups for run in each.runs})
    return [
        Group(g.settings, g.task, g.data_set, g.metric, g.runs, g.others, sorted(set(seeds) - present))
        for g in groups
        for present in [{run.seed for run in (*g.runs, *g.others)}]
    ]


def shared_settings(records: Sequence[Record], varying: set[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What all runs share, for the caption, and what only those on one data set share."""
    names = list(dict.fromkeys(record.data_set for record in records))
    per_set = {name: deciding(next(r for r in records if r.data_set == name).config) for name in names}
    constant: dict[str, Any] = {}
    by_data_set: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key in per_set[names[0]]:
        values = {_text(settings.get(key)): settings.get(key) for settings in per_set.values()}
        if key in varying or key in DATA_KEYS:
            continue
        if len(values) == 1:
            constant[key] = next(iter(values.values()))
        else:
            for name in names:
                by_data_set[name][key] = per_set[name].get(key)
    return constant, by_data_set


def label(settings: Mapping[str, Any]) -> str:
    """Short name of a system: `lr 3e-5, dropout 0.1`; a model goes by its name alone."""
    return ", ".join(
        shown(value) if key == "model.name" else f"{key.split('.')[-1].replace('_', ' ')} {shown(value)}"
        for key, value in settings.items()
    )


def shown(value: Any) -> str:
    """A config value as a reader writes it: 3e-5, not 3e-05; a folder by its own name."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if value == 0 or 1e-3 <= abs(value) < 1e6:
            return f"{value:g}"
        return re.sub(r"\.?0*e\+?(-?)0?(\d+)", r"e\1\2", f"{value:.6e}")
    if isinstance(value, str):
        return Path(value).name if "/" in value else value
    return str(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False)


def sortable(value: Any) -> tuple[int, float, str]:
    """Numbers by size, then texts by their letters; nothing first."""
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, int | float):
        return (1, float(value), "")
    return (2, 0.0, str(value))


def _seeds(run: Record) -> tuple[int, ...]:
    """seed, and the seeds of initialisation and order that it stands for."""
    seed = run.seed
    return (seed, *(seed if run.config[key] is None else int(run.config[key]) for key in SEEDS[1:]))


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=False, ensure_ascii=False)
