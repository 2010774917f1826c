"""`Trainer.hyperparameter_search` with Optuna: what a sweep of this harness is measured against.

    python benchmarks/hf_search.py sentiment --model DIR --train train.jsonl --validation validation.jsonl --bf16 \\
        --epochs 1 --search '{"trials": 20, ...}'

The Trainer of `hf_trainer.py`, one process, every core. `--search` is a JSON object: trials, seed, lr and warmup (low
and high), evaluate_every_steps, min_resource and reduction_factor of the successive halving. The points are those that
this harness draws, in the same order. The last line printed is one JSON object.
"""

from __future__ import annotations

import json
import tempfile
import time
from typing import Any

import hf_trainer
import optuna
import psutil
from optuna.distributions import BaseDistribution
from transformers import TrainerCallback

from research.sweep.samplers import FixedOrder, random_unit
from research.sweep.space import at

KEYS = {"learning_rate": "optim.lr", "warmup_ratio": "optim.warmup_ratio"}


class Scores(TrainerCallback):
    """The best evaluation of all trials, and the steps they made."""

    def __init__(self) -> None:
        self.best, self.steps = 0.0, 0

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.steps += 1

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.best = max(self.best, given["metrics"]["eval_accuracy"])


def search(args: Any, asked: dict[str, Any], folder: str) -> dict[str, Any]:
    """Run the search; every trial is complete or pruned when it returns."""
    trainer, _ = hf_trainer.make_trainer(args, hf_trainer.Clock(0), folder)
    scores = Scores()
    trainer.add_callback(scores)
    task = hf_trainer.TASKS[args.task](hf_trainer.read(args.train, args.max_train_examples))
    trainer.model_init = lambda trial: task.auto_class.from_pretrained(args.model, num_labels=len(task.labels))
    trainer.args.eval_strategy, trainer.args.eval_steps = "steps", asked["evaluate_every_steps"]
    steps = int(args.epochs * -(-len(trainer.train_dataset) // args.batch_size))  # type: ignore[arg-type]

    def space(trial: optuna.Trial) -> dict[str, float]:
        ratio = trial.suggest_float("warmup_ratio", *asked["warmup"])
        return {
            "learning_rate": trial.suggest_float("learning_rate", *asked["lr"], log=True),
            "warmup_steps": int(ratio * steps),
        }

    def draw(number: int, key: str, distribution: BaseDistribution) -> Any:
        return at(distribution, random_unit(asked["seed"], number, KEYS[key]))

    pruner = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=asked["min_resource"], reduction_factor=asked["reduction_factor"]
    )
    trainer.hyperparameter_search(
        hp_space=space,
        compute_objective=lambda metrics: metrics["eval_accuracy"],
        n_trials=asked["trials"],
        direction="maximize",
        backend="optuna",
        sampler=FixedOrder(draw),
        pruner=pruner,
        storage=(storage := optuna.storages.InMemoryStorage()),
        study_name="peer",
    )
    states = [t.state.name for t in optuna.load_study(study_name="peer", storage=storage).trials]
    return {
        "best": scores.best,
        "steps": scores.steps,
        "complete": states.count("COMPLETE"),
        "pruned": states.count("PRUNED"),
    }


def main() -> None:
    parser = hf_trainer.make_parser()
    parser.add_argument("--search", type=json.loads, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = search(args, args.search, folder)
    print(json.dumps({**found, "seconds": round(time.time() - psutil.Process().create_time(), 1)}))


if __name__ == "__main__":
    main()
