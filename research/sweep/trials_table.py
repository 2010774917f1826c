"""Results of a search: its trials as a table and as Parquet, the best one as an experiment; remove old checkpoints."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from research.common.console import console
from research.common.files import write_atomically
from research.config.schema import Config
from research.config.tree import to_dict
from research.report.settings import key_text
from research.sweep.claims import newest
from research.sweep.study import Search
from research.sweep.sweepfile import trial_folder, with_values

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
COSTS = ("device_hours", "wall_seconds", "flops", "energy_joules")


def state_of(search: Search, trial: FrozenTrial) -> str:
    """As in STATES, but `interrupted` for a trial whose worker has died or given it back."""
    if trial.state.is_finished():
        return STATES[trial.state]
    claim = newest(search.claims.of(trial.number))
    begun = trial.state == TrialState.RUNNING or claim is not None
    return "interrupted" if begun and (claim is None or search.claims.is_free(claim)) else STATES[trial.state]


def best(search: Search) -> FrozenTrial | None:
    """The complete trial with the best score; of equals, the first."""
    return next(iter(ranked(search)), None)


def ranked(search: Search) -> list[FrozenTrial]:
    """The complete trials, best first."""
    complete = [t for t in search.trials() if t.state == TrialState.COMPLETE and t.value is not None]
    sign = 1 if search.smaller_is_better else -1
    return sorted(complete, key=lambda t: (sign * (t.value or 0.0), t.number))


def refresh(search: Search, base: Config) -> None:
    """Update trials.parquet, best.yaml and the kept weights with what all workers have recorded."""
    ended = -1
    while ended != (now := sum(t.state.is_finished() for t in search.trials())):
        ended = now
        write_trials(search)
        write_best(search, base)
        tidy(search)


def trials_table(search: Search) -> pa.Table:
    """One row a trial: state, score, parameters, seeds, costs, when, and its run folders."""
    trials = search.trials()
    costs = {name: [_total([run.get(name) for run in t.user_attrs.get("runs", [])]) for t in trials] for name in COSTS}
    columns: dict[str, Any] = {
        "number": [t.number for t in trials],
        "state": [state_of(search, t) for t in trials],
        "score": pa.array([t.value for t in trials], pa.float64()),
        **{key: _column([t.params.get(key) for t in trials]) for key in search.sweep.space},
        "seeds": pa.array([_each(t, "seed") for t in trials], pa.list_(pa.int64())),
        "scores": pa.array([_each(t, "score") for t in trials], pa.list_(pa.float64())),
        "steps": pa.array([_total(_each(t, "steps")) for t in trials], pa.int64()),
        **{name: pa.array(values, pa.float64()) for name, values in costs.items()},
        "reason": pa.array([_reason(t) for t in trials], pa.string()),
        "started": pa.array([t.datetime_start for t in trials], pa.timestamp("us")),
        "ended": pa.array([t.datetime_complete for t in trials], pa.timestamp("us")),
        "runs": pa.array([_each(t, "run") for t in trials], pa.list_(pa.string())),
    }
    about = {"metric": search.metric, "sweep": search.sweep.name}
    return pa.table(columns).replace_schema_metadata({b"research": json.dumps(about).encode()})


def _column(values: list[Any]) -> pa.Array:
    """Choices of several types are written as JSON text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else json.dumps(value) for value in values], pa.string())


def _each(trial: FrozenTrial, name: str) -> list[Any]:
    return [run.get(name) for run in trial.user_attrs.get("runs", [])]


def _total(values: list[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _reason(trial: FrozenTrial) -> str | None:
    """Why a trial was pruned or failed."""
    note = trial.user_attrs.get({TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}.get(trial.state, ""), {})
    reason: str | None = note.get("reason")
    return reason


def write_trials(search: Search) -> None:
    with write_atomically(search.folder / "trials.parquet") as temporary:
        pq.write_table(trials_table(search), temporary, compression="zstd")


def write_best(search: Search, base: Config) -> None:
    """best.yaml: the best trial as an experiment, with its first seed and no run folder of its own."""
    trial = best(search)
    if trial is None:
        return
    own = {"seed": search.sweep.seeds[0], "run_dir": None}
    config = with_values(base, {**trial.params, **own}, f"trial {trial.number}")
    head = (
        f"# Trial {trial.number} of the sweep {search.sweep.name}: validation {search.metric} {trial.value:.4f}, "
        f"mean over seeds {', '.join(map(str, search.sweep.seeds))}.\n"
    )
    with write_atomically(search.folder / "best.yaml") as temporary:
        temporary.write_text(head + OmegaConf.to_yaml(OmegaConf.create(to_dict(config))), encoding="utf-8")


def tidy(search: Search) -> None:
    """Remove the checkpoints of ended trials, and the weights of all but the best; a failed one keeps what it has."""
    kept = {trial.number for trial in ranked(search)[: search.sweep.keep_models]}
    for trial in search.trials():
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            continue
        for run in trial_folder(search.sweep, trial.number).glob("seed*"):
            shutil.rmtree(run / "checkpoints", ignore_errors=True)
            if trial.number not in kept:
                shutil.rmtree(run / "model", ignore_errors=True)


def report(search: Search) -> None:
    """Print the table of trials, why some were cut short, and the progress of the search."""
    rows = trials_table(search).to_pylist()
    console.print(_rich_table(search, rows))
    for row in rows:
        if row["reason"]:
            console.print(f"trial {row['number']} {row['state']}: {row['reason']}")
    for line in status_lines(search):
        console.print(line)


def status_lines(search: Search) -> list[str]:
    """How many trials are in which state, the best one, and when the end is to be expected."""
    trials = search.trials()
    counts = Counter(state_of(search, trial) for trial in trials)
    asked = f" of {search.asked}" if search.asked else ""
    states = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no trial yet"
    lines = [f"{search.sweep.name}: {states}{asked}"]
    found = best(search)
    if found is not None:
        shown = ", ".join(f"{key}={_shown(value)}" for key, value in found.params.items())
        lines.append(f"best: {search.metric} {found.value:.4f}, trial {found.number} ({shown})")
        lines.append(f"best experiment: {search.folder / 'best.yaml'}")
    if (seconds := seconds_left(search, trials, counts["running"])) is not None:
        end = time.strftime("%F %T", time.localtime(time.time() + seconds))
        lines.append(f"expected end: {end}, with {counts['running']} at work")
    return lines


def seconds_left(search: Search, trials: list[FrozenTrial], running: int) -> float | None:
    """Seconds until the last trial ends, estimated from the mean time of ended ones; None where no trial has ended."""
    ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED) and t.datetime_start]
    took = [t.duration.total_seconds() for t in ended if t.duration is not None]
    if search.asked is None or not took or not running:
        return None
    done = sum(_seconds_since(t.datetime_start) for t in trials if t.state == TrialState.RUNNING and t.datetime_start)
    left = search.asked - sum(t.state.is_finished() for t in trials)
    return max(0.0, left * sum(took) / len(took) - done) / running


def _seconds_since(moment: datetime | None) -> float:
    return time.time() - moment.timestamp() if moment else 0.0


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _rich_table(search: Search, rows: list[dict[str, Any]]) -> Table:
    keys = list(search.sweep.space)
    table = Table(title=f"Trials of {search.sweep.name}", title_justify="left")
    for name in ("trial", "state", search.metric, *map(key_text, keys), "steps", "device hours"):
        table.add_column(name, justify="left" if name == "state" else "right")
    for row in rows:
        cells = [row["number"], row["state"], row["score"], *(row[key] for key in keys), row["steps"]]
        hours = row["device_hours"]
        shown = ["" if cell is None else _shown(cell) for cell in cells]
        table.add_row(*shown, "" if hours is None else f"{hours:.3f}")
    return table
