"""Fixed orders, seeds of adaptive samplers, and pruners that wait for the warmup."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import Trial, TrialState, create_trial
from scipy.stats import kstest, qmc

from research.config.component import choose
from research.config.schema import Config
from research.sweep.run_length import RunLength, evaluations, run_length
from research.sweep.samplers import make_pruner, make_sampler, trials_asked
from research.sweep.space import at, distribution, grid, suggest
from research.sweep.sweepfile import BudgetConfig, Parameter, PrunerConfig, SamplerConfig, SweepConfig

SPACE = {
    "optim.lr": Parameter(low=1e-5, high=1e-3, log=True),
    "optim.warmup_ratio": Parameter(low=0.0, high=0.3),
    "optim.schedule": Parameter(choices=["linear", "cosine"]),
}


def sweep_of(sampler: str, space: dict[str, Parameter] = SPACE, seed: int = 1) -> SweepConfig:
    return SweepConfig(experiment="e", space=space, sampler=SamplerConfig(name=sampler, seed=seed))  # type: ignore[arg-type]


def drawn(study: optuna.Study, sweep: SweepConfig, number: int) -> dict[str, Any]:
    """The parameters of trial `number`, as a worker draws them."""
    study.sampler = make_sampler(sweep, number)
    return suggest(sweep.space, Trial(study, study.get_trials(deepcopy=False)[number]._trial_id))


def queue(trials: int) -> optuna.Study:
    study = optuna.create_study()
    for _ in range(trials):
        study.enqueue_trial({})
        newest = study.get_trials(deepcopy=False)[-1]
        study._storage.set_trial_state_values(newest._trial_id, TrialState.RUNNING)
    return study


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_a_fixed_order_does_not_depend_on_who_draws_and_when(sampler: str) -> None:
    sweep = sweep_of(sampler)
    forwards, backwards = queue(12), queue(12)
    expected = [drawn(forwards, sweep, n) for n in range(12)]
    assert [drawn(backwards, sweep, n) for n in reversed(range(12))][::-1] == expected
    assert len({point["optim.lr"] for point in expected}) == 12
    half = queue(3)  # a worker died after the first draw
    study_trial = Trial(half, half.trials[2]._trial_id)
    half.sampler = make_sampler(sweep, 2)
    study_trial.suggest_float("optim.lr", 1e-5, 1e-3, log=True)
    assert drawn(half, sweep, 2) == expected[2]
    assert [drawn(queue(12), sweep_of(sampler, seed=2), n) for n in range(12)] != expected


@pytest.mark.slow
def test_random_values_are_uniform_and_independent() -> None:
    sweep, study = sweep_of("random"), queue(400)
    points = [drawn(study, sweep, n) for n in range(400)]
    lr = [(math.log10(p["optim.lr"]) + 5) / 2 for p in points]
    warmup = [p["optim.warmup_ratio"] / 0.3 for p in points]
    assert kstest(lr, "uniform").pvalue > 0.01 and kstest(warmup, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(lr, warmup)[0, 1]) < 0.13
    assert 160 < sum(p["optim.schedule"] == "linear" for p in points) < 240


def test_qmc_draws_the_points_of_one_sobol_sequence() -> None:
    sweep, study = sweep_of("qmc"), queue(16)
    expected = qmc.Sobol(3, scramble=True, rng=1).random(16)
    keys = sorted(SPACE)
    for number in range(16):
        point = drawn(study, sweep, number)
        for column, key in enumerate(keys):
            assert point[key] == at(distribution(key, SPACE[key]), expected[number, column])


def test_grid_visits_every_point_once() -> None:
    space = {
        "optim.schedule": Parameter(choices=["linear", "constant"]),
        "optim.warmup_ratio": Parameter(low=0.0, high=0.2, step=0.1, when={"optim.schedule": "linear"}),
        "optim.batch_size": Parameter(choices=[8, 16]),
    }
    sweep = sweep_of("grid", space)
    assert trials_asked(sweep) == 8
    study = queue(8)
    visited = [drawn(study, sweep, n) for n in range(8)]
    assert sorted(map(sorted_items, visited)) == sorted(map(sorted_items, grid(space)))
    sweep.budget = BudgetConfig(trials=5)
    assert trials_asked(sweep) == 5
    assert trials_asked(sweep_of("tpe")) is None


def sorted_items(point: dict[str, Any]) -> str:
    return repr(sorted(point.items()))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "gp", "cma-es"])
def test_adaptive_samplers_learn_and_each_trial_has_a_seed_of_its_own(sampler: str) -> None:
    space = {key: SPACE[key] for key in ("optim.lr", "optim.warmup_ratio")}
    sweep = sweep_of(sampler, space)
    sweep.sampler.startup_trials = 6
    study = optuna.create_study()
    first = []
    for number in range(22):
        study.enqueue_trial({})
        study._storage.set_trial_state_values(study.trials[number]._trial_id, TrialState.RUNNING)
        point = drawn(study, sweep, number)
        first.append(point["optim.lr"])
        study.tell(number, (math.log10(point["optim.lr"]) + 4.5) ** 2 + (point["optim.warmup_ratio"] - 0.1) ** 2)
    assert len(set(first[:6])) == 6
    early, late = (np.median([study.trials[n].value for n in part]) for part in (range(6), range(14, 22)))
    assert late < early / 2


def config(**optim: Any) -> Config:
    built = Config(task=choose("task", "sentiment"))
    built.model.name, built.data.train, built.data.validation, built.run_dir = "a/b", "t", "v", "r"
    for name, value in optim.items():
        setattr(built.optim, name, value)
    return built


@pytest.mark.slow
def test_run_length_is_that_of_the_worst_corner() -> None:
    space = {
        "optim.warmup_ratio": Parameter(low=0.0, high=0.25),
        "optim.epochs": Parameter(low=1, high=4),
        "optim.batch_size": Parameter(choices=[8, 32]),
    }
    assert run_length(space, config(), examples=100) == RunLength(largest_warmup=13, most_steps=52)
    assert run_length({}, config(epochs=2.0, batch_size=10, warmup_ratio=0.1), 100) == RunLength(2, 20)
    assert run_length({}, config(warmup_steps=30, max_steps=50), 100) == RunLength(30, 50)
    either = {"optim.warmup_steps": Parameter(low=0, high=40)}
    assert run_length(either, config(max_steps=50), 100) == RunLength(40, 50)


def test_when_a_run_is_evaluated() -> None:
    assert evaluations(config(batch_size=10), 100) == [10, 20, 30]
    every = config(batch_size=10, max_steps=25)
    every.trainer.evaluate_every_steps = 7
    assert evaluations(every, 100) == [7, 14, 21, 25]


@pytest.mark.parametrize("name", ["median", "asha", "hyperband"])
def test_no_pruner_cuts_before_the_largest_warmup_has_ended(name: str) -> None:
    pruner = make_pruner(PrunerConfig(name=name, startup_trials=1, reduction_factor=2), 40, 320)  # type: ignore[arg-type]
    study = optuna.create_study(study_name="fixed", pruner=pruner, direction="maximize")
    for _ in range(8):
        good = {step: 0.9 for step in range(10, 321, 10)}
        study.add_trial(create_trial(value=0.9, intermediate_values=good, system_attrs={"completed_rung_0": 0.9}))
    cut = []
    for _ in range(12):
        trial = study.ask()
        for step in range(10, 320, 10):
            trial.report(0.1 + step / 1e4, step)
            if trial.should_prune():
                cut.append(step)
                break
        study.tell(trial, state=TrialState.PRUNED)
    assert cut and min(cut) >= 40 and 40 in cut


def test_min_steps_can_only_make_it_later() -> None:
    assert make_pruner(PrunerConfig(name="asha", min_steps=10), 40, 100)._min_resource == 40  # type: ignore[attr-defined]
    assert make_pruner(PrunerConfig(name="asha", min_steps=60), 40, 100)._min_resource == 60  # type: ignore[attr-defined]
    assert make_pruner(PrunerConfig(name="hyperband"), 0, 100)._max_resource == 100  # type: ignore[attr-defined]
