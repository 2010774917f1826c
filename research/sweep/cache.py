"""Cache of what the trials of one worker share: opened and tokenised data, pretrained weights; each is loaded once.

A module made here is bit-identical to one that `research.training.build.build` makes: data are the same arrays, and
weights a copy of those that were loaded, with the same new head, for the same model, settings and seed.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from research.cluster.group import RankGroup
from research.config.schema import Config
from research.models.load import load_model
from research.training.build import build, open_data
from research.training.datamodule import TaskData
from research.training.module import TaskModule
from research.training.start import started
from research.training.unlabelled import extend_training

MOST = 4  # kept of each kind, the newest


class TrialCache:
    """Builds the modules of trials from cached data and weights."""

    def __init__(self) -> None:
        self._data: dict[str, TaskData] = {}
        self._models: dict[str, tuple[PreTrainedModel, torch.Tensor]] = {}

    def build(self, config: Config, group: RankGroup | None = None) -> TaskModule:
        """The module of a run, bit-identical to that of `research.training.build.build`."""
        config = started(config, group)
        return build(config, self.data(config, group), load=self.load)

    def data(self, config: Config, group: RankGroup | None = None) -> TaskData:
        """A copy of the cached data module with the run's own config."""
        config = started(config, group)
        shared = {"model": config.model.name, "revision": config.model.revision, **asdict(config.data)}
        weights = (config.optim.class_weights, config.optim.balance_classes)
        key = json.dumps([asdict(config.task), {**shared, "num_workers": 0}, weights])
        if key not in self._data:
            _keep(self._data, key, open_data(config, group))
        own = copy.copy(self._data[key])
        own.config, own.splits, own.stores = config, dict(own.splits), dict(own.stores)
        extend_training(own)  # which depend on seed, batch size and methods too
        return own

    def load(self, config: Config, own: PretrainedConfig, auto_class: Any) -> PreTrainedModel:
        """`load_model`, from memory where the same weights with the same head were loaded before."""
        key = json.dumps([asdict(config.model), config.init_seed, auto_class.__name__, own.to_dict()], default=str)
        if key not in self._models:
            model = load_model(config, own, auto_class)
            _keep(self._models, key, (model, torch.get_rng_state()))
        model, generator = self._models[key]
        torch.set_rng_state(generator)  # as after drawing the head
        return copy.deepcopy(model)


def _keep(kept: dict[str, Any], key: str, value: Any) -> None:
    kept[key] = value
    for oldest in list(kept)[:-MOST]:
        del kept[oldest]
