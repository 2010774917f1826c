"""Build a task's module on its data: the same weights and the same head for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForTokenClassification, PreTrainedModel

from research.adapters.hooks import AdapterHooks
from research.adapters.unmerged import load_unmerged
from research.cluster.group import RankGroup
from research.common.errors import UserError
from research.config import component
from research.config.schema import Config
from research.models.backbone import Backbone
from research.models.linear_head import HEADS, LinearHead
from research.models.load import DECODER, ENCODER, family_of, load_config, load_model, load_tokenizer
from research.training.bases import seed_everything
from research.training.datamodule import TaskData
from research.training.features import silence_frozen
from research.training.module import TaskModule
from research.training.precision import with_precision
from research.training.preflight import refuse_unknown_monitor
from research.training.schedule import total_steps
from research.training.start import started


def build(
    config: Config,
    data: TaskData | None = None,
    group: RankGroup | None = None,
    load: Callable[..., PreTrainedModel] = load_model,
) -> TaskModule:
    """The task's module on its data: the same weights and the same head for the same seed."""
    task = component.load("task", config.task.name)
    if config.trainer.precision == "fp16" and not torch.cuda.is_available():
        raise UserError("trainer.precision=fp16 needs a GPU; set bf16 or fp32 here.")
    config = with_precision(started(config, group), group)
    if data is None:
        data = open_data(config, group)
    refuse_unknown_monitor(config, data.scorer.scores)
    heads = heads_of(config)
    own = load_config(config, data.head, heads)
    seed_everything(config.init_seed, verbose=False)
    model = load(config, own, heads[str(family_of(own))])
    embeddings: Any = model.get_input_embeddings()
    if len(data.tokenizer) > embeddings.num_embeddings:
        raise UserError(
            f"The tokenizer of {config.model.name} has {len(data.tokenizer)} tokens, its model only "
            f"{embeddings.num_embeddings}: they do not belong together."
        )
    adapter: AdapterHooks = component.load("adapter", config.adapter.name).Adapter(config.adapter)
    note = adapter.apply(model)
    load_unmerged(model, adapter, config.adapter.name, Path(config.model.name))
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError(f"adapter={config.adapter.name} leaves nothing of {type(model).__name__} to train.")
    backbone = backbone_of(config, model)
    adapter.feed(backbone, longest_sequence(config, backbone.family))
    steps = total_steps(config.optim, data.plan.steps_per_epoch) if "train" in data.stores else 0
    module: TaskModule = task.Module(config, backbone, data, steps)
    data.layout = module.layout
    module.prepare(adapter, note)
    silence_frozen(module)
    return module


def heads_of(config: Config) -> Mapping[str, Any]:
    """The `transformers` class that has the head of an experiment, by the families of models its task is for.

    Raises UserError for `model.head=linear` where the task has no head that one layer can take the place of.
    """
    heads: Mapping[str, Any] = component.load("task", config.task.name).Module.heads()
    if config.model.head == "own":
        return heads
    if heads.get(ENCODER) not in HEADS:
        raise UserError(f"model.head=linear: task '{config.task.name}' has no head of scores; leave it at own.")
    return {ENCODER: AutoModelForTokenClassification}


def backbone_of(config: Config, model: PreTrainedModel) -> Backbone:
    """The model as it is fed, its head read as `model.head` says."""
    packing, trains_alone = config.trainer.packing, config.trainer.last_layer == "read"
    if config.model.head == "own":
        return Backbone(model, packing, trains_alone)
    own = component.load("task", config.task.name).Module.heads()[ENCODER]
    return LinearHead(model, packing, trains_alone, own)


def longest_sequence(config: Config, family: str) -> int:
    """The most tokens that are fed in one sequence; a decoder continues its prompt."""
    written = ("max_new_tokens", "max_target_tokens") if family == DECODER else ()
    return config.data.max_length + max((getattr(config.task, key, 0) for key in written), default=0)


def open_data(config: Config, group: RankGroup | None = None) -> TaskData:
    """The task's data, opened and tokenised, by one rank of each node first."""
    config = started(config, group)
    task = component.load("task", config.task.name)
    load_config(config, families=heads_of(config))  # refuses a model that cannot serve before the data is encoded
    data: TaskData = task.Data(config, load_tokenizer(config, task.Data.prefix_space))
    with (group or RankGroup()).local_rank_zero_first():
        data.open()
    return data
