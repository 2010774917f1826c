"""Texts without labels (`data.unlabelled`) that a method reads in each step beside the training data."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from research.batching.plan import Indices, StepPlan
from research.batching.store import Store
from research.batching.unlabelled import PlanWithUnlabelled, store_of_both
from research.common.errors import UserError
from research.config import component
from research.data.overview import overview_of, refuse_overlap
from research.data.source import Split
from research.methods.hooks import methods_of
from research.training.declared_columns import open_declared
from research.training.epochs import EpochStores, epochs_of, operations_of

if TYPE_CHECKING:
    from research.training.datamodule import TaskData

NAME = "unlabelled"


def extend_training(data: TaskData) -> None:
    """Take up the unlabelled texts and the augmentation that the config asks for beside the opened training data."""
    data.unlabelled = opened_unlabelled(data)
    data.epochs = epochs_of(data)


class Unlabelled:
    """The training data with unlabelled texts after them; `augment` changes the unlabelled texts alone."""

    def __init__(self, data: TaskData) -> None:
        self.config, self.labelled = data.config, data.stores["train"]
        self.as_written = store_of_both(self.labelled, data.stores[NAME])
        self.rows: Indices = np.arange(len(self.labelled), len(self.as_written))  # those that are read
        operations, seed = operations_of(self.config.augment), self.config.order_seed
        self.epochs = EpochStores(data, data.splits[NAME], operations, seed, self._joined) if operations else None

    def _joined(self, unlabelled: Store) -> Store:
        return store_of_both(self.labelled, unlabelled)

    @property
    def plan(self) -> PlanWithUnlabelled:
        labelled = StepPlan(len(self.labelled), self.config.optim.batch_size, self.config.order_seed)
        return PlanWithUnlabelled(labelled, self.rows, self.config.data.unlabelled_ratio)

    def store(self, step: int) -> Store:
        """Both at an optimiser step; unlabelled texts change with their own epochs."""
        return self.as_written if self.epochs is None else self.epochs(step // self.plan.own.steps_per_epoch)


def opened_unlabelled(data: TaskData) -> Unlabelled | None:
    """The unlabelled texts of an experiment, as the split `unlabelled`; None where no method that is on reads them.

    Raises UserError where no method of the experiment could read them, and where they hold more than the share
    `data.max_overlap` of the texts that are validated or tested on.
    """
    config = data.config
    if config.data.unlabelled is None:
        return None
    if not any(component.load("method", keys.name).Method.reads_unlabelled for keys in config.methods.values()):
        raise UserError("No method of this experiment reads data.unlabelled; switch one on, such as methods.uda.")
    if not any(method.reads_unlabelled for method in methods_of(config).values()):
        return None
    split = data.prepared(open_declared(data, config.data, "input", config.data.unlabelled, None))
    held = [name for name in data.gold if name in split.rows.column_names]
    split = replace(split, name=NAME, rows=split.rows.remove_columns(held))
    refuse_tested_texts(data, split)
    data.splits[NAME], data.stores[NAME] = split, data.make_store(split)
    return Unlabelled(data)


def refuse_tested_texts(data: TaskData, split: Split) -> None:
    for name in ("validation", "test"):
        if name in data.splits:
            both = {NAME: split, name: data.splits[name]}
            refuse_overlap(both, overview_of(both, data.inputs, None), data.config.data.max_overlap)
