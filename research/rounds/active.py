"""Active learning simulated: the labels of the training data are hidden, and shown where a strategy asks for them.

A curve begins with a random sample of `start` examples, the same for every strategy of a seed. In each round the model
is trained from the pretrained one on all examples shown so far, and a strategy chooses `budget` others by that model.
Each round is an ordinary run on `data.ids`; a finished one is not made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from research.common.errors import UserError
from research.config.load import load_config
from research.config.schema import Config
from research.data.chosen_ids import read_ids, write_ids
from research.inference.acquisition import NEED_VECTORS, Indices, chosen
from research.inference.finished_config import finished_config, task_data
from research.inference.finished_run import finished_result
from research.inference.select import answers
from research.tracking.run import Run
from research.training.build import build, open_data
from research.training.chain import finished

RANDOM = "random"
START, ROUND = 0x57, 0x52  # what is drawn


@dataclass(frozen=True)
class Simulation:
    """An experiment, and how much is labelled when."""

    experiment: Path
    overrides: tuple[str, ...]
    output: Path
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]
    start: int
    budget: int
    rounds: int

    @property
    def sizes(self) -> list[int]:
        """How many examples are labelled at each point of a curve."""
        return [self.start + i * self.budget for i in range(self.rounds + 1)]


@dataclass(frozen=True)
class Curve:
    """The scores of one strategy and seed after each round."""

    strategy: str
    seed: int
    scores: tuple[float, ...]
    runs: tuple[Path, ...]


@dataclass(frozen=True)
class Pool:
    """The training data whose labels are hidden at first."""

    ids: list[str]
    labels: list[str]


def simulate(simulation: Simulation) -> tuple[str, list[Curve]]:
    """The score that is drawn, and the curve of every strategy and seed. Raises Stopped where a signal ends a run."""
    pool = opened(simulation)
    curves = [
        curve(simulation, pool, strategy, seed) for strategy in simulation.strategies for seed in simulation.seeds
    ]
    return str(finished_result(Run.read(curves[0].runs[0]))["monitor"]), curves


def opened(simulation: Simulation) -> Pool:
    """Raises UserError for a pool that is too small, and for keys that say what to train on."""
    config = load_config(simulation.experiment, [*simulation.overrides])
    for key in ("ids", "shots", "max_train_examples"):
        if getattr(config.data, key) is not None:
            raise UserError(f"data.{key} says what to train on, which the simulation chooses; remove it.")
    data = open_data(config)
    if not {"validation", "test"} & set(data.splits):
        raise UserError("A learning curve needs scores: name data.test or data.validation.")
    ids = list(data.splits["train"].rows["id"])
    if simulation.sizes[-1] > len(ids):
        raise UserError(
            f"--start {simulation.start} and {simulation.rounds} rounds of --budget {simulation.budget} label "
            f"{simulation.sizes[-1]} examples; the training data have {len(ids)}."
        )
    return Pool(ids, list(data.labels))


def curve(simulation: Simulation, pool: Pool, strategy: str, seed: int) -> Curve:
    """Rounds of training and choosing."""
    scores, runs = list[float](), list[Run]()
    for number in range(simulation.rounds + 1):
        folder = simulation.output / (f"{strategy}/round{number}" if number else "start")
        file = folder / f"seed{seed}-ids.json"
        if not file.is_file():
            before = runs[-1] if runs else None
            write_ids(shown_in_round(simulation, pool, strategy, seed, number, before), file)
        if len(read_ids(str(file))) != simulation.sizes[number]:
            raise UserError(f"{file} was made with other --start or --budget; give another --output.")
        run = finished(round_config(simulation, pool, file, seed, folder), f"{folder.name}, {strategy}, seed {seed}")
        scores.append(score_of(run))
        runs.append(run)
    return Curve(strategy, seed, tuple(scores), tuple(run.path for run in runs))


def round_config(simulation: Simulation, pool: Pool, file: Path, seed: int, folder: Path) -> Config:
    config = load_config(
        simulation.experiment,
        [*simulation.overrides, f"seed={seed}", f"data.ids={file}", f"run_dir={folder / f'seed{seed}'}"],
    )
    config.data.labels = pool.labels or config.data.labels  # few examples need not show all of them
    return config


def shown_in_round(
    simulation: Simulation, pool: Pool, strategy: str, seed: int, number: int, before: Run | None
) -> list[str]:
    """The ids of all examples that are labelled in a round, those of the round before it first."""
    if before is None:
        order = np.random.default_rng([seed, START]).permutation(len(pool.ids))
        return [pool.ids[i] for i in order[: simulation.start]]
    shown = read_ids(str(before.config.data.ids))
    is_shown = np.isin(pool.ids, shown)
    free, labelled = np.flatnonzero(~is_shown), np.flatnonzero(is_shown)
    rng = np.random.default_rng([seed, number, ROUND])
    if strategy == RANDOM:
        picked = rng.permutation(free)[: simulation.budget]
    else:
        picked = asked_for(before, strategy, simulation.budget, free, labelled, rng)
    return [*shown, *(pool.ids[i] for i in picked)]


def asked_for(
    run: Run, strategy: str, budget: int, free: Indices, labelled: Indices, rng: np.random.Generator
) -> Indices:
    """The examples of the pool that a strategy chooses by a finished run."""
    config, learned = finished_config(run), finished_result(run)["learned"]
    config.data.ids = None
    data = task_data(run, config)
    data.open(learned, only="train")
    probabilities, vectors = answers(build(config, data).eval(), "train", strategy in NEED_VECTORS)
    of_free, of_labelled = (None, None) if vectors is None else (vectors[free], vectors[labelled])
    return free[chosen(strategy, budget, rng, probabilities[free], of_free, of_labelled)]


def score_of(run: Run) -> float:
    """The main score on test data, or on validation data where there are no others."""
    result = finished_result(run)
    scores = result["metrics"]["test"] or result["metrics"]["validation"]
    return float(scores[result["monitor"]])
