"""Pruning: ask the pruner about a trial's learning curve, by optimiser step, or about its scores, seed by seed.

Fair to warmup: nothing is reported before the largest warmup of the space has ended, and a trial that is cut short has
had the learning rates of the full run's schedule. Each verdict against a trial is recorded with its reason before it
is carried out, so a worker that dies in between leaves it standing.
"""

from __future__ import annotations

from optuna.trial import Trial

from research.cluster.signals import Interrupted
from research.sweep.context import WorkerContext
from research.sweep.samplers import first_verdict
from research.sweep.storage import StorageLost


class Watch:
    """Receives the evaluations of a trial's first seed and decides whether the run is pruned."""

    def __init__(self, context: WorkerContext, trial: Trial) -> None:
        self.context, self.trial = context, trial
        self.first_step = first_verdict(context.sweep.pruner, context.length.largest_warmup)

    def __call__(self, step: int, scores: dict[str, float]) -> str | None:
        """The reason to prune the run at this step; None to continue."""
        if step < self.first_step:
            return None
        search = self.context.search
        try:
            with self.context.flag.deferred():
                return verdict(self.context, self.trial, step, scores[search.metric])
        except StorageLost as error:
            search.storage_lost(error)
        except Interrupted:
            pass  # the flag has noted the signal: the run stops after its next step
        return None


def verdict(context: WorkerContext, trial: Trial, step: int, value: float, final: bool = False) -> str | None:
    """Report a value and, unless it is the final one, ask the pruner.

    A step that was decided before, by a worker that died, stays decided.
    """
    search, name = context.search, context.sweep.pruner.name
    known = search.trials()[trial.number]
    if known.user_attrs.get("pruned", {}).get("step") == step:
        return str(known.user_attrs["pruned"]["reason"])
    if known.last_step is not None and step < known.last_step:
        return None
    if step not in known.intermediate_values:
        search.report(trial, value, step)
    if final or not search.patience(trial.should_prune):
        return None
    others = [t.intermediate_values[step] for t in search.trials() if step in t.intermediate_values]
    best = (min if search.smaller_is_better else max)(others)
    unit = "seed" if name == "wilcoxon" else "step"
    reason = f"{name} at {unit} {step}: {search.metric} {value:.4f}, the best of {len(others)} there is {best:.4f}"
    search.note(trial, "pruned", {"step": step, "reason": reason})
    return reason
