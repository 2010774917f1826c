"""One trial: a run over each of its seeds, in folders of its own, by `research.train`.

A trial's score is the mean over the seeds of the best checkpoint's validation score. Pruners that compare a trial's
course watch its first seed; Wilcoxon's compares the seeds' scores. What was begun before, by this worker or a dead
one, resumes from its checkpoint, finished seeds are kept, and verdicts are not changed.
"""

from __future__ import annotations

import gc
import statistics
from typing import Any

from optuna.trial import Trial, TrialState

from research.cluster.group import has_lost_the_others
from research.cluster.signals import STOPPED
from research.common.console import console
from research.common.errors import Diverged, UserError, is_out_of_memory, is_outside_fault
from research.common.text import one_line
from research.config.schema import Config
from research.config.tree import to_dict
from research.sweep.claims import Claim
from research.sweep.context import WorkerContext
from research.sweep.pruning import Watch, verdict
from research.sweep.space import suggest
from research.sweep.study import Search
from research.sweep.sweepfile import trial_config, trial_folder
from research.tracking.run import Run
from research.training.run import train


class HandedBack(Exception):
    """A signal ended the run under way, which is saved."""


class Failed(Exception):
    """The trial cannot be finished: `kind` says in which way, the message why."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def run_trial(context: WorkerContext, trial: Trial, claim: Claim) -> None:
    """Run a trial to its end and record in the study how it ended.

    What is not the trial's fault (a signal, a lost storage, a full disk) is raised after giving the trial back.
    """
    search, flag = context.search, context.flag
    value, notes, alone = None, {}, False
    try:
        state, value = _outcome(context, trial)
    except Failed as error:
        state, notes = TrialState.FAIL, {"failed": {"kind": error.kind, "reason": str(error)}}
        alone = context.group.world.size > 1 and error.kind != "diverged"  # which all ranks see at the same step
        console.print(f"Trial {trial.number} failed ({error.kind}): {error}")
    except BaseException:
        with flag.deferred():
            search.give_back(trial, claim)
        raise
    finally:
        gc.collect()  # Lightning's objects hold one another, and with them the model
    runs = [record for seed in context.sweep.seeds if (record := record_of(search, trial.number, seed))]
    device_hours = sum(record["device_hours"] for record in runs)
    with flag.deferred():
        search.finish(trial, claim, state, value, {**notes, "runs": runs, "device_hours": device_hours})
    if alone:
        raise UserError(f"Rank 0 of {context.group.world.size} failed alone: this worker ends, others continue.")


def _outcome(context: WorkerContext, trial: Trial) -> tuple[TrialState, float | None]:
    """Run what is left of the trial. Raises Failed."""
    search, sweep = context.search, context.sweep
    deaths = search.claims.deaths(trial.number, progress(search, trial.number)) - 1
    if deaths >= sweep.stop_after_deaths:
        raise Failed("worker died", f"{deaths} workers in a row died on it without a new checkpoint; out of memory?")
    with context.flag.deferred():
        values = search.patience(lambda: suggest(sweep.space, trial))
    shown = [f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()]
    console.print(f"Trial {trial.number}: {', '.join(shown)}")
    scores: list[float] = []
    for place, seed in enumerate(sweep.seeds):
        config = trial_config(sweep, context.base, trial.number, values, seed)
        run = Run(str(config.run_dir))
        if (run.outcome or {}).get("state") != "pruned":
            by_step = place == 0 and sweep.pruner.name not in ("none", "wilcoxon")
            _train(context, config, Watch(context, trial) if by_step else None)
        if run.result is None:
            return TrialState.PRUNED, None
        scores.append(run.result["metrics"]["validation"][search.metric])
        if sweep.pruner.name == "wilcoxon":
            with context.flag.deferred():
                surely_worse = verdict(context, trial, place, scores[-1], final=place + 1 == len(sweep.seeds))
            if surely_worse:
                return TrialState.PRUNED, None
    return TrialState.COMPLETE, statistics.fmean(scores)


def _train(context: WorkerContext, config: Config, watch: Watch | None) -> None:
    """One run to its end, pruned or not. Raises Failed for what is the trial's own fault."""
    context.group.agree(lambda: [to_dict(config), watch is not None])  # the other ranks run it, too
    try:
        code = train(config, context.group, context.cache.build, watch, context.flag)
    except Exception as error:
        if is_outside_fault(error) or has_lost_the_others(error):
            raise
        raise Failed(failure_kind(error), str(error) if isinstance(error, UserError) else one_line(error)) from error
    finally:
        context.flag.steps_run = False
    if context.search.lost is not None:
        raise context.search.lost
    if code == STOPPED:
        raise HandedBack


def failure_kind(error: Exception) -> str:
    """The part of a message that failures of one kind share."""
    if isinstance(error, Diverged):
        return "diverged"
    return "out of memory" if is_out_of_memory(error) else type(error).__name__


def progress(search: Search, number: int) -> str:
    """Progress of the runs of a trial: which are finished, and the newest checkpoint of each of the others."""
    steps = []
    for run in sorted(trial_folder(search.sweep, number).glob("seed*")):
        newest = max((path.name for path in run.glob("checkpoints/step-*.safetensors")), default="")
        steps.append("finished" if (run / "result.json").is_file() else newest)
    return " ".join(steps)


def record_of(search: Search, number: int, seed: int) -> dict[str, Any]:
    """Score and cost of one run of a trial, as its folder has them; empty where it came to no end."""
    folder = trial_folder(search.sweep, number) / f"seed{seed}"
    run = Run(folder)
    record = run.result or run.outcome
    if record is None:
        return {}
    score = (run.result or {}).get("metrics", {}).get("validation", {}).get(search.metric)
    steps = record["steps"] if run.result else record["step"]
    return {
        "seed": seed,
        "score": score,
        "steps": steps,
        "run": str(folder.relative_to(search.folder)),
        **record["cost"],
    }
