"""One worker of a search: takes trials and runs them until none is left for it.

Start as many as you like, when you like; none needs another to be alive. A worker that is stopped by SIGTERM or
Ctrl-C gives its trial back, saved at the step under way, and the next worker continues it. Of a worker of several
ranks, rank zero takes the trials and talks to the study; the others run what it says.
"""

from __future__ import annotations

import gc
import signal

from research.cluster.group import RankGroup
from research.cluster.signals import STOPPED, Interrupted, StopFlag
from research.common import extras
from research.common.console import console
from research.common.errors import Diverged, UserError
from research.config import component
from research.config.load import from_dict
from research.config.schema import Config
from research.metrics.base import BaseMetric
from research.metrics.score import Score
from research.sweep import trials_table as results
from research.sweep.cache import TrialCache
from research.sweep.context import WorkerContext
from research.sweep.run_length import evaluations, run_length
from research.sweep.samplers import first_verdict, make_pruner
from research.sweep.study import Search, direction, open_search
from research.sweep.sweepfile import SweepConfig, searched_config
from research.sweep.trial import HandedBack, progress, run_trial
from research.training.preflight import refuse_unknown_monitor
from research.training.run import train

CTRL_C = 130  # exit code


def work(sweep: SweepConfig, group: RankGroup | None = None, resume_anyway: bool = False) -> int:
    """Be one worker of a sweep, or one rank of it. Returns the exit code: 75 or 130 when stopped by a signal."""
    base, group = shared_config(sweep), group or RankGroup()
    with StopFlag() as flag:
        try:
            if group.world.rank == 0:
                _lead(sweep, base, group, flag, resume_anyway)
            else:
                _follow(base, group, flag)
        except (Interrupted, HandedBack):
            console.print("Stopped. Trials are given back; run the same command to resume them.")
        if group.world.rank == 0:
            group.agree(lambda: None)  # there is no other run
        if flag.signal is None:
            return 0
        with flag.deferred():
            group.leave()
        return CTRL_C if flag.signal == signal.SIGINT else STOPPED


def shared_config(sweep: SweepConfig) -> Config:
    """The settings all trials share; a task of the user's may make its usual score when it is imported."""
    base = searched_config(sweep)
    base.trainer.monitor = base.trainer.monitor or component.load("task", base.task.name).Module.monitor
    return base


def searched_score(sweep: SweepConfig, base: Config, metric: BaseMetric) -> Score:
    """The score that is searched for. Raises UserError for one that the metric lacks, and for another direction."""
    refuse_unknown_monitor(base, metric.scores)
    score = metric.score_named(str(base.trainer.monitor))
    if sweep.direction not in (None, direction(score)):
        raise UserError(
            f"direction={sweep.direction} does not go with metric={score.name}: "
            f"{'a smaller' if score.smaller_is_better else 'a larger'} value is better."
        )
    return score


def _lead(sweep: SweepConfig, base: Config, group: RankGroup, flag: StopFlag, resume_anyway: bool) -> None:
    """Rank zero: take trials, run them with all ranks, record how they ended."""
    cache = TrialCache()
    data = cache.data(base, group)
    score, examples = searched_score(sweep, base, data.scorer), len(data.stores["train"])
    with flag.deferred():
        search = open_search(sweep, base, score, resume_anyway, flag)
    length = run_length(sweep.space, base, examples)
    search.study.pruner = make_pruner(sweep.pruner, length.largest_warmup, length.most_steps)
    context = WorkerContext(search, base, length, group, flag, cache)
    if note := pruning_note(context, examples):
        console.print(note)
    gc.freeze()  # imports and data stay: what is collected after each trial is what that trial made
    while True:
        with flag.deferred():
            search.refuse_repeated_failures()
            taken = None if flag.signal is not None else search.next(lambda number: progress(search, number))
        if taken is None:
            break
        run_trial(context, *taken)
        with flag.deferred():
            results.refresh(search, base)
    with flag.deferred():
        results.refresh(search, base)
        if search.is_over():
            _draw(search)
        results.report(search)


def _draw(search: Search) -> None:
    """Draw the figures of a finished search, or say which extra they need."""
    try:
        from research.sweep import figures
    except ModuleNotFoundError as error:
        print(f"No figures of the search were drawn: {extras.advice(error) or error}")
    else:
        figures.draw(search)


def _follow(base: Config, group: RankGroup, flag: StopFlag) -> None:
    """Every other rank: run what rank zero broadcasts, until it broadcasts None."""
    cache = TrialCache()
    cache.data(base, group)
    while True:
        with flag.deferred():  # a signal between runs stops the next one at its start or first step, on all ranks
            order = group.agree(lambda: None)
        if order is None:
            return
        config, watched = from_dict(order[0]), order[1]
        try:
            code = train(config, group, cache.build, (lambda step, scores: None) if watched else None, flag)
        except Diverged:
            continue  # on all ranks alike: rank zero tells
        finally:
            flag.steps_run = False
        if code == STOPPED:
            raise HandedBack


def pruning_note(context: WorkerContext, examples: int) -> str | None:
    """A sentence that says why the pruner cannot prune any trial of the experiment's length; None where it can."""
    name = context.sweep.pruner.name
    if name in ("none", "wilcoxon"):
        return None
    first, steps = (
        first_verdict(context.sweep.pruner, context.length.largest_warmup),
        evaluations(context.base, examples),
    )
    if any(first <= step < steps[-1] for step in steps):
        return None
    return (
        f"pruner.name={name} will cut no trial: the largest warmup ends at step {first}, and no evaluation lies "
        f"between that and the end at step {steps[-1]}. Evaluate more often: settings.trainer.evaluate_every_steps."
    )
