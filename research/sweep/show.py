"""Print a sweep for `research show`: the space, the runs, when they may be pruned, and their expected cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext

import torch

from research.batching.pack import Planner
from research.common.text import counted
from research.sweep.cache import TrialCache
from research.sweep.run_length import evaluations, run_length
from research.sweep.samplers import first_verdict, trials_asked
from research.sweep.sweepfile import SweepConfig, to_yaml
from research.sweep.worker import searched_score, shared_config
from research.training.module import TaskModule

TIMED_STEPS = 3


def show(sweep: SweepConfig) -> None:
    """Print the resolved sweep, what it searches and what it costs at most; train nothing."""
    base = shared_config(sweep)
    module = TrialCache().build(base)
    searched_score(sweep, base, module.data.scorer)
    print(to_yaml(sweep))
    for line in lines(sweep, module):
        print(line)


def lines(sweep: SweepConfig, module: TaskModule) -> Iterator[str]:
    """The sentences behind the YAML."""
    base, examples = module.config, len(module.data.stores["train"])
    span = run_length(sweep.space, base, examples)
    for key, p in sweep.space.items():
        values = f"one of {p.choices}" if p.choices is not None else f"{p.low:g} to {p.high:g}"
        details = [" (log)" * p.log, f", step {p.step:g}" if p.step else "", f", when {p.when}" if p.when else ""]
        yield f"space: {key}: {values}{''.join(details)}"
    trials = trials_asked(sweep)
    runs = None if trials is None else trials * len(sweep.seeds)
    b = sweep.budget
    limits = [f"{trials} trials" if trials else "", f"{b.hours:g} hours" if b.hours else ""]
    limits.append(f"{b.device_hours:g} device hours" if b.device_hours else "")
    many = f"{runs} runs: " if runs else ""
    yield f"budget: {' or '.join(filter(None, limits))}; {many}{counted(len(sweep.seeds), 'seed')} a trial"
    yield f"run: {module.total_steps} steps of the experiment, at most {span.most_steps} in the space"
    if sweep.pruner.name not in ("none", "wilcoxon"):
        first = first_verdict(sweep.pruner, span.largest_warmup)
        steps = [step for step in evaluations(base, examples)[:-1] if step >= first]
        yield f"pruner: {sweep.pruner.name}, at steps {steps}; the largest warmup ends at step {span.largest_warmup}"
    seconds = step_seconds(module)
    run_seconds = seconds * module.total_steps
    yield f"cost: {seconds:.3f} s a step on this machine, {run_seconds / 60:.1f} min a run, evaluations aside"
    if runs:
        yield f"cost: at most {runs * run_seconds / 3600:.2f} device hours for {runs} runs of that length, none pruned"


def step_seconds(module: TaskModule) -> float:
    """Seconds for forward and backward of an optimiser step, the first left out; the weights stay as they are."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module.to(device).train()
    planner = Planner(
        module.data.training_store(0), module.data.plan, 0, 1, module.budget_tokens, module.backbone.packed, False
    )
    lower = module.config.trainer.precision != "fp32"
    began = 0.0
    for step in range(TIMED_STEPS + 1):
        if step == 1:
            began = time.perf_counter()
        for micro in planner(step % module.total_steps).micro:
            with torch.autocast(device.type, torch.bfloat16) if lower else nullcontext():
                loss = module.loss(micro.to(device))[0]
            loss.backward()
        module.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
    return (time.perf_counter() - began) / TIMED_STEPS
