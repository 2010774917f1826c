"""Run records made into the groups of a table; runs that do not belong together are refused with the difference.

Systems are rows, data sets columns, seeds inside a cell. The runs of a group differ in nothing that decides the numbers
but the seeds, so a mean never mixes settings.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from research.common.errors import UserError
from research.report.groups import Grid, RunGroup, with_distinct_texts
from research.report.parents import with_common_parents
from research.report.records import Record, status_counts
from research.report.searches import has_choices_alone
from research.report.settings import (
    DATA_KEYS,
    canonical,
    differing_keys,
    keys_of_systems,
    place_of,
    sort_key,
    system_name,
    value_text,
)
from research.tracking import own_code


def group_runs(
    records: Sequence[Record],
    by: Sequence[str] | None = None,
    metric: str | None = None,
    beside: Sequence[Record] = (),
) -> Grid:
    """Group runs by the config keys `by`: by default, all keys that differ between runs on one data set.

    Trials of a sweep stand beside the table, not in it; where there is nothing else, each setting of a sweep over lists
    of values does, and of other sweeps the best trial. `metric` is the score of the table: by default the one that
    chose each run's checkpoint. `by` may name keys that only the runs `beside` have, as of another adapter.

    Raises UserError for unknown keys, for no finished run, and for groups whose runs differ in more than the seed.
    """
    records = with_common_parents(table_records(records, each_choice=True))
    finished = [record for record in records if record.status == "finished"]
    if not finished:
        counts = ", ".join(f"{count} {state}" for state, count in status_counts(records).items())
        raise UserError(f"None of the runs is finished ({counts}); run their training commands again to resume them.")
    settings = {id(record): record.settings for record in records}
    varying = differing_keys(records)
    keys = list(by) if by is not None else keys_of_systems(varying)
    keys = keys or ["model.name"]
    refuse_unknown(keys, [*settings.values(), *(record.settings for record in beside)])
    cells: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        chosen = {key: settings[id(record)].get(key) for key in keys}
        cells.setdefault((canonical(chosen), record.data_set), []).append(record)
    groups = [_make(json.loads(chosen), members, metric) for (chosen, _), members in cells.items()]
    data_sets = list(dict.fromkeys(record.data_set for record in records))
    groups = with_distinct_texts(groups)
    groups.sort(key=lambda g: ([sort_key(value) for value in g.settings.values()], data_sets.index(g.data_set)))
    refuse_mixed(groups)
    constant, by_data_set = shared_settings(records, {*keys, *varying})
    return Grid(_with_missing(groups), keys, constant, by_data_set)


def table_records(records: Sequence[Record], each_choice: bool = False) -> list[Record]:
    """The records without the trials of sweeps; where there are only trials, those of the best of each sweep.

    `each_choice`: of a sweep over lists of values alone, one trial of each setting.
    """
    sweeps: dict[Path, list[Record]] = {}
    for record in records:
        if record.sweep is not None:
            sweeps.setdefault(record.sweep, []).append(record)
    alone = [record for record in records if record.sweep is None]
    chosen = [
        _trial_of_each_setting(trials) if each_choice and has_choices_alone(sweep) else best_trial(trials)
        for sweep, trials in sweeps.items()
    ]
    return alone or [record for trials in chosen for record in trials]


def _trial_of_each_setting(trials: Sequence[Record]) -> list[Record]:
    """A sampler may draw a setting twice: of its trials the first that has a finished run."""
    folder_of: dict[str, Path] = {}
    for record in sorted(trials, key=lambda record: (record.status != "finished", str(record.path))):
        folder_of.setdefault(canonical(record.settings), record.path.parent)
    return [record for record in trials if folder_of[canonical(record.settings)] == record.path.parent]


def best_trial(trials: Sequence[Record]) -> list[Record]:
    """The runs of the trial (one folder) with the best mean validation score; all runs where none is finished."""
    by_trial: dict[Path, list[Record]] = {}
    for record in trials:
        by_trial.setdefault(record.path.parent, []).append(record)

    def mean(runs: list[Record]) -> float:
        scores = [run.scores("validation").get(run.chosen_by) for run in runs]
        known = [score for score in scores if score is not None]
        sign = -1 if runs[0].score_named(runs[0].chosen_by).smaller_is_better else 1
        return sign * float(np.mean(known)) if len(known) == len(runs) else -np.inf

    best = max(by_trial.values(), key=mean)
    return best if mean(best) > -np.inf else list(trials)


def refuse_unknown(keys: Iterable[str], settings: Iterable[Mapping[str, Any]]) -> None:
    known = {key for each in settings for key in each}
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UserError(f"Runs cannot be grouped by '{key}': it is no config key that decides a score.{hint}")


def _make(settings: dict[str, Any], members: list[Record], metric: str | None) -> RunGroup:
    """One group. Raises UserError where its runs differ in anything but the seeds, or are two of one seed."""
    runs = sorted((run for run in members if run.status == "finished"), key=place_of)
    name = system_name({key: value_text(value) for key, value in settings.items() if key in members[0].settings})
    place = f"{name or 'the one system'} on {members[0].data_set}"
    refuse_differences(members, place)
    for run, next_run in pairwise(runs):
        if place_of(run) == place_of(next_run):
            which = f"seed {run.seed}" if run.fold is None else f"fold {run.fold}, seed {run.seed}"
            raise UserError(f"{run.path} and {next_run.path} are the same run twice ({which}, {place}); leave one out.")
    others = [run for run in members if run.status != "finished"]
    metrics = sorted({run.monitor for run in runs})
    if metric is None and len(metrics) > 1:
        raise UserError(f"The runs of {place} were chosen by different scores ({', '.join(metrics)}); name one metric.")
    chosen = metric or (metrics[0] if metrics else "")
    return RunGroup(settings, members[0].task, members[0].data_set, chosen, runs, others)


def refuse_differences(members: Sequence[Record], place: str) -> None:
    """Raise UserError, naming the difference, unless the runs ask for the same and share data and weights."""
    wanted = [{**run.settings, **_foundations(run)} for run in members]
    lines = []
    for key in dict.fromkeys(key for each in wanted for key in each):
        values = {canonical(each[key]): each[key] for each in wanted if key in each}
        if len(values) > 1:
            lines.append(f"{key}: {' | '.join(value_text(value) for value in values.values())}")
    if lines:
        raise UserError(
            f"The {len(members)} runs of {place} differ in more than the seed: {'; '.join(lines)}. "
            "Group by that too (--by), or leave runs out."
        )


def _foundations(run: Record) -> dict[str, Any]:
    """What a run depends on beside its config. A run that never began to train has not recorded any."""
    found: dict[str, Any] = {}
    for split in ("train", "validation", "test"):
        fingerprint = run.fingerprint(split)
        if fingerprint is not None:
            of_fold = "" if run.fold is None else f" of fold {run.fold}"
            of_fold += "" if run.sample is None else f" of sample {run.sample}"
            found[f"the {split} examples{of_fold}"] = f"{fingerprint[0][:12]}… ({fingerprint[1]:,})"
            encoded = run.provenance["data"][split].get("encoded_xxh3")
            if encoded is not None and not run.provenance["data"][split].get("drawn"):
                found[f"the {split} examples as they were encoded{of_fold}"] = f"{encoded[:12]}…"
    for name, hashes in own_code.versions(run.provenance).items():
        found[f"the file of {name}"] = ", then ".join(f"{sha256[:12]}…" for sha256 in hashes)
    if run.provenance.get("weights") and run.parents is None:
        found["the pretrained weights"] = {name: sha[:12] for name, sha in run.provenance["weights"].items()}
    return found


def refuse_other_tasks(records: Sequence[Record]) -> None:
    """Raise UserError where runs on one data set are of different tasks, unless one metric scores both."""
    first: dict[str, Record] = {}
    for run in records:
        other = first.setdefault(run.data_set, run)
        if other.task != run.task and other.scored_by != run.scored_by:
            raise UserError(
                f"{other.path} is a run of task {other.task} and {run.path} one of task {run.task}, both on "
                f"'{run.data_set}'; their scores do not compare: report them apart."
            )


def refuse_mixed(groups: Sequence[RunGroup]) -> None:
    """Raise UserError where systems of one column were scored on different tasks, test sets or metrics."""
    refuse_other_tasks([run for each in groups for run in each.runs])
    refuse_folds_beside_none(groups)
    first: dict[tuple[str, int | None], tuple[RunGroup, Record]] = {}
    for each in groups:
        for run in each.runs:
            other_group, other = first.setdefault((each.data_set, run.fold), (each, run))
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
                if split != each.split and (run.sample, other.sample) != (None, None):
                    continue  # few-shot samples choose the checkpoint, and are no test set
                theirs, ours = other.fingerprint(split), run.fingerprint(split)
                if theirs is not None and ours is not None and theirs != ours:
                    raise UserError(
                        f"{other.path} and {run.path} were scored on different {split} examples of "
                        f"'{each.data_set}' ({theirs[1]:,} and {ours[1]:,} examples, sha256 {theirs[0][:12]}… and "
                        f"{ours[0][:12]}…): report them apart, or evaluate one again."
                    )


def refuse_folds_beside_none(groups: Sequence[RunGroup]) -> None:
    """Raise UserError where one system of a data set was cross-validated and another was not."""
    first: dict[str, Record] = {}
    for run in (run for each in groups for run in each.runs):
        other = first.setdefault(run.data_set, run)
        if (other.fold is None) is not (run.fold is None):
            raise UserError(
                f"On '{run.data_set}', one of {other.path} and {run.path} was tested on a fold and the other was not; "
                "report them apart."
            )


def _with_missing(groups: Sequence[RunGroup]) -> list[RunGroup]:
    """The groups, each with the seeds that others have and it neither finished nor began."""
    seeds = sorted({run.seed for each in groups for run in each.runs})
    return [
        replace(g, missing=sorted(set(seeds) - present))
        for g in groups
        for present in [{run.seed for run in (*g.runs, *g.others)}]
    ]


def shared_settings(records: Sequence[Record], varying: set[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What all runs share, for the caption, and what only those on one data set share."""
    names = list(dict.fromkeys(record.data_set for record in records))
    per_set = {name: next(r for r in records if r.data_set == name).settings for name in names}
    constant: dict[str, Any] = {}
    by_data_set: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key in dict.fromkeys(key for settings in per_set.values() for key in settings):
        having = {name: settings[key] for name, settings in per_set.items() if key in settings}
        if key in varying or key in DATA_KEYS:
            continue
        if len(having) == len(names) and len(set(map(canonical, having.values()))) == 1:
            constant[key] = having[names[0]]
        else:  # a task's own key, or another value
            for name, value in having.items():
                by_data_set[name][key] = value
    return constant, by_data_set
