"""The config and the data of a finished run, for what evaluates it, predicts with it or serves it."""

from __future__ import annotations

from pathlib import Path

from research.adapters.unmerged import FILE as UNMERGED
from research.config import component
from research.config.load import in_long_form
from research.config.schema import Config
from research.config.tree import component_names
from research.inference.finished_run import finished_result, refuse_changed_model
from research.models.load import load_tokenizer
from research.tracking.run import Run
from research.training.datamodule import TaskData


def finished_config(run: Run, trust_remote_code: bool = False) -> Config:
    """The config of a finished run, with its own trained model in the place of the pretrained one.

    Code that the folder brings along runs only where this command asks for it, whatever the run's config says.
    Raises UserError for a run that is not finished and for a model that has changed since.
    """
    refuse_changed_model(run)
    if trust_remote_code:
        stored = in_long_form(run.stored_config, str(run.path), Path.cwd())
        component.ASKED_FOR.update(component_names(stored))
    config = run.config
    config.model.trust_remote_code = trust_remote_code
    config.model.name, config.model.revision, config.model.keep_layers = str(run.model), None, None
    if not (run.model / UNMERGED).is_file():
        config.adapter = component.choose("adapter", "full")  # its weights are merged
    config.methods, config.callbacks, config.loggers, config.augment = {}, {}, {}, {}  # of training alone
    config.optim.class_weights, config.optim.balance_classes = {}, False  # of the training loss alone
    trainer = config.trainer
    trainer.devices, trainer.num_nodes, trainer.strategy = 1, 1, "auto"  # one process, whatever it was trained on
    return config


def task_data(run: Run, config: Config) -> TaskData:
    """The task's data, not opened yet, with what the run's validation scores decided."""
    task = component.load("task", config.task.name)
    data: TaskData = task.Data(config, load_tokenizer(config, task.Data.prefix_space))
    data.use_validation_scores(finished_result(run)["metrics"]["validation"])
    return data
