"""What a finished run is good for: new scores, and labels for new text."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import lightning as L

from research.common.errors import UserError
from research.config.schema import Config
from research.models.load import load_tokenizer
from research.tracking import predictions
from research.tracking.run import Run
from research.training.build import build
from research.training.datamodule import TaskData
from research.training.trainer import make_trainer


class _Evaluation(L.Callback):
    """Keeps the table and scores of one evaluation of a finished run."""

    def on_test_end(self, trainer: L.Trainer, module: Any) -> None:
        self.table, self.scores = module.scored()


def evaluate(run: Run, split: str) -> dict[str, float]:
    """Score a finished run again on one of its splits; rewrites predictions/<split>.parquet."""
    config = finished_config(run)
    value = getattr(config.data, split)
    if value is None:
        named = [name for name in ("train", "validation", "test") if getattr(config.data, name)]
        raise UserError(f"The run {run.path} has no split '{split}'; it has {', '.join(named)}.")
    for name in {"train", "validation", "test"} - {split}:
        setattr(config.data, name, None)
    data = task_data(run, config)
    data.tested = split
    data.open(finished_result(run)["learned"])
    if data.splits[split].fingerprint != run.provenance["data"][split]["sha256"]:
        raise UserError(
            f"{data.splits[split].origin} has changed since the run {run.path} was trained; restore it, or label it "
            "with `research predict`."
        )
    if split == "validation":
        data.settle({})  # its own scores, as training reported them, come before what they settle
    module = build(config, data)
    callback = _Evaluation()
    make_trainer(config, [callback], []).test(module, datamodule=module.data, verbose=False)
    predictions.write(callback.table, run.predictions / f"{split}.parquet")
    return callback.scores


def finished_config(run: Run) -> Config:
    """The config of a finished run, with its own trained model in the place of the pretrained one."""
    finished_result(run)
    config = run.config
    config.model.name, config.model.revision = str(run.model), None
    config.optim.class_weights, config.optim.balance_classes = {}, False  # of the training loss alone
    trainer = config.trainer
    trainer.devices, trainer.num_nodes, trainer.strategy = 1, 1, "auto"  # one process, whatever it was trained on
    return config


def finished_result(run: Run) -> dict[str, Any]:
    """The result of a finished run. Raises UserError for one that is not finished."""
    if run.result is None:
        raise UserError(f"The run {run.path} is not finished; run its training command again to finish it.")
    return run.result


def task_data(run: Run, config: Config) -> TaskData:
    """The task's data, not opened yet, with what the run's validation settled."""
    task = import_module(f"research.tasks.{config.task}")
    data: TaskData = task.Data(config, load_tokenizer(config))
    data.settle(finished_result(run)["metrics"]["validation"])
    return data
