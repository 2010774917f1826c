"""Asking the pruner: about a trial's course, by optimiser step, or about its scores, seed by seed.

Fair to warmup: nothing is reported before the largest warmup of the space has ended, and a trial that is cut short has
had the learning rates of the whole run's schedule. Each verdict against a trial is recorded with its reason before it
is carried out, so a worker that dies in between leaves it standing.
"""

from __future__ import annotations

from optuna.trial import Trial

from research.cluster.signals import Interrupted
from research.metrics import smaller_is_better
from research.sweep.context import Bench
from research.sweep.samplers import first_verdict
from research.sweep.storage import StorageLost


class Watch:
    """Told the evaluations of a trial's first seed, answers whether the run shall end."""

    def __init__(self, bench: Bench, trial: Trial) -> None:
        self.bench, self.trial = bench, trial
        self.first_step = first_verdict(bench.sweep.pruner, bench.horizon.largest_warmup)

    def __call__(self, step: int, scores: dict[str, float]) -> str | None:
        """Why the run shall end at this step; None: it goes on."""
        if step < self.first_step:
            return None
        search = self.bench.search
        try:
            with self.bench.flag.held():
                return verdict(self.bench, self.trial, step, scores[search.metric])
        except StorageLost as error:
            search.storage_lost(error)
        except Interrupted:
            pass  # the flag has noted the signal: the run stops after its next step
        return None


def verdict(bench: Bench, trial: Trial, step: int, value: float, final: bool = False) -> str | None:
    """Report a value and, unless it is the final one, ask the pruner.

    A step that was decided before, by a worker that died, stays decided.
    """
    search, name = bench.search, bench.sweep.pruner.name
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
    best = (min if smaller_is_better(search.metric) else max)(others)
    unit = "seed" if name == "wilcoxon" else "step"
    reason = f"{name} at {unit} {step}: {search.metric} {value:.4f}, the best of {len(others)} there is {best:.4f}"
    search.note(trial, "pruned", {"step": step, "reason": reason})
    return reason
