"""Features once: what frozen layers without dropout put out is computed for each split, kept on disk, and given to the
layers above in every epoch, seed and trial.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from research.adapters.hooks import layer_stacks
from research.batching.pack import pack
from research.batching.plan import StepPlan
from research.batching.read_tokens import ALL, FIRST, MARKED
from research.batching.store import Store
from research.cluster.group import RankGroup
from research.common.errors import UserError
from research.models.frozen import FrozenLayers, without_gradient
from research.models.load import ENCODER
from research.models.parameters import trained_parameters
from research.models.probe import in_evaluation, probe_batch
from research.training import feature_files
from research.training.feature_files import Kept
from research.training.module import TaskModule

GIB = 1 << 30


def silence_frozen(module: TaskModule) -> None:
    """With model.frozen_dropout=false, switch the dropout off of the frozen layers at the bottom of the model.

    Raises UserError where no layer is frozen.
    """
    config, backbone = module.config, module.backbone
    if config.model.frozen_dropout or "train" not in module.data.stores:
        return
    stack, *others = [layers for _, layers in layer_stacks(backbone.model)] or [nn.ModuleList()]
    frozen = 0
    if backbone.family == ENCODER and not others and module.rows is None and not backbone.prompt_tokens:
        device = next(backbone.model.parameters()).device
        frozen = without_gradient(backbone, stack, probe_batch(backbone.model.config, backbone.packed).to(device))
    if not frozen:
        raise UserError(
            "model.frozen_dropout=false: no layer at the bottom of the model is frozen; freeze some, as in "
            "adapter: head or adapter: {name: freeze, layers: 3}, or remove the key."
        )
    base: Any = backbone.model.base_model
    above = {id(part) for layer in stack[frozen:] for part in layer.modules()}
    trained = {id(p) for p in trained_parameters(backbone.model).values()}
    backbone.quiet = [
        part
        for part in base.modules()
        if part is not base and id(part) not in above and not any(id(p) in trained for p in part.parameters())
    ]
    backbone.train(backbone.training)
    backbone.frozen = FrozenLayers(stack, frozen)
    embeddings = getattr(base, "embeddings", None)
    if isinstance(embeddings, nn.Module) and not hasattr(base, "embeddings_project"):
        backbone.frozen.skip_embeddings(embeddings)


def reason_against(module: TaskModule) -> str | None:
    """Why features are not reused in this run; None where they are."""
    config, folder = module.config, feature_files.cache_folder()
    if config.trainer.reuse_features is False:
        return "trainer.reuse_features is false"
    if module.backbone.frozen is None:
        return "no layer at the bottom of the model is frozen and without dropout (model.frozen_dropout=false)"
    if module.draws_tokens:
        return f"the tokens of task '{config.task.name}' are others in each epoch"
    if module.data.epochs is not None:
        return "augment changes the training texts in each epoch"
    if module.data.unlabelled is not None:
        return "unlabelled texts are read beside the training data"
    if not isinstance(module.data.plan, StepPlan):
        return "several tasks share the encoder"
    moving = [name for name, method in module.methods.items() if "moves the embedded tokens" in method.claims]
    if moving:
        return f"methods.{moving[0]} moves the embedded tokens"
    if module.sharded:
        return "trainer.strategy=fsdp shares the frozen layers out"
    if module.total_steps < module.data.plan.steps_per_epoch:
        return "the run is shorter than an epoch"
    if not asked_of(module):
        return f"task '{config.task.name}' reads scores of the vocabulary"
    limit, kept = config.trainer.features_gib * GIB, kept_of(module)
    size = kept.size_bytes(module.data.stores)
    if size > limit:
        return f"they take {size / GIB:.1f} GiB, more than trainer.features_gib={config.trainer.features_gib:g}"
    missing = sum(kept.bytes_of(store) for store in module.data.stores.values() if not kept.has(store))
    if shutil.disk_usage(existing(folder)).free < missing + GIB // 4:
        return f"{folder} has too little space for {missing / GIB:.1f} GiB"
    return None


def note(module: TaskModule, reason: str | None) -> str:
    """A line on what is reused where frozen layers have no dropout, or the reason against it."""
    if reason is not None:
        return f"features of frozen layers are computed in each step: {reason}"
    size = kept_of(module).size_bytes(module.data.stores)
    limit, folder = module.config.trainer.features_gib, feature_files.cache_folder()
    frozen = module.backbone.frozen
    assert frozen is not None
    return (
        f"features: what the lowest {len(frozen.layers)} layers put out is computed once and reused; "
        f"{size / 1e6:,.0f} MB of at most {limit:g} GiB in {folder}"
    )


def reuse_features(
    module: TaskModule, group: RankGroup, device: torch.device, precision: Callable[[], AbstractContextManager[Any]]
) -> None:
    """Say whether features are reused, and give the splits theirs, computed here unless the cache has them.

    Raises UserError where trainer.reuse_features=true cannot be followed.
    """
    must, frozen = module.config.trainer.reuse_features is True, module.backbone.frozen
    if frozen is None and not must:
        return
    reason = group.agree(lambda: reason_against(module))  # the space on a disk changes while another rank writes
    if frozen is not None and group.world.rank == 0:
        _say(note(module, reason))
    if reason is None:
        module.to(device)
        with group.local_rank_zero_first():
            reason = _give_features(module, precision)
    if reason is not None and must:
        raise UserError(f"trainer.reuse_features=true: {reason}.")


def _say(text: str) -> None:
    from research.common.console import console  # here: what answers alone does without it

    console.print(text)


def _give_features(module: TaskModule, precision: Callable[[], AbstractContextManager[Any]]) -> str | None:
    """Compute what the cache lacks, and open it. Returns why that failed, if it did: the run continues without."""
    kept, data = kept_of(module), module.data
    folders = {split: kept.folders(store) for split, store in data.stores.items()}
    own = [folder for each in folders.values() for folder in each.values()]
    stores: dict[str, Store] = {}
    try:
        feature_files.cache_folder().mkdir(parents=True, exist_ok=True)
        for folder in filter(Path.is_dir, own):
            os.utime(folder)
        needed = kept.size_bytes(data.stores)
        feature_files.remove_oldest(module.config.trainer.features_gib * GIB - needed, spared=own)
        with precision():
            for split, store in data.stores.items():
                features = {stream: kept.made(store, stream, folder) for stream, folder in folders[split].items()}
                stores[split] = store.with_features(features)
    except OSError as error:
        _say(f"Features of frozen layers are not kept: {error}.")
        return f"{feature_files.cache_folder()} cannot be used ({error})"
    data.stores = stores
    return None


def kept_of(module: TaskModule) -> Kept:
    """What is kept of the splits of this run; made once."""
    frozen = module.backbone.frozen
    assert frozen is not None
    if frozen.kept is None:
        frozen.kept = Kept(module, tokens_kept(module))
    found: Kept = frozen.kept
    return found


def tokens_kept(module: TaskModule) -> str:
    """Which tokens' features are needed: above the last layer those that the head alone reads, else all."""
    backbone = module.backbone
    assert backbone.frozen is not None
    if not backbone.frozen.are_all or not backbone.packed or module.methods:  # methods may read more than the task
        return ALL
    asked = asked_of(module)
    if asked == {MARKED} and not backbone.trains_alone:  # the head's dropout draws for all tokens then
        return ALL
    return next(iter(asked)) if asked in ({FIRST}, {MARKED}) else ALL


def asked_of(module: TaskModule) -> set[str]:
    """Which tokens' outputs the task reads, seen on its shortest example; none where it does not read the encoder's."""
    backbone = module.backbone
    if not backbone.asked_of:
        store = module.data.stores["train"]
        micro = pack(store, np.array([int(store.tokens.argmin())]), backbone.packed)
        with in_evaluation(module):
            module.outputs(micro.to(next(backbone.parameters()).device))
    return set(backbone.asked_of)


def existing(folder: Path) -> Path:
    """The nearest folder that is there."""
    return next((each for each in (folder, *folder.parents) if each.is_dir()), Path("/"))
