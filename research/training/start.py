"""Where a run from scratch begins: a folder with config and tokenizer, made once for its keys and training texts.

It lies in the cache of `datasets`, under a fingerprint of both. Weights are drawn when the model is built.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import tokenizers

from research.cluster.group import RankGroup
from research.common.errors import UserError
from research.config import component
from research.config.schema import SCRATCH, Config
from research.data.source import Split
from research.models import scratch
from research.models.load import load_config, load_tokenizer
from research.models.scratch import texts_in, write_start
from research.training.datamodule import TaskData

NEED_WEIGHTS = ("mixout", "l2_sp")  # methods that pull towards what the model began with
ROWS_AT_ONCE = 1000


def started(config: Config, group: RankGroup | None = None) -> Config:
    """The config with a folder for `model.name`: one made for it where that is `scratch`, by one rank of each node.

    Raises UserError for an adapter or a method that needs pretrained weights.
    """
    if config.model.name != SCRATCH:
        return config
    refuse_what_needs_weights(config)
    with (group or RankGroup()).local_rank_zero_first():
        folder = start_folder(config)
    return _at(config, folder)


def pretrained_name(config: Config) -> str:
    """The model whose weights a run begins with: that of `model.name`, or the encoder that bert2bert is made of."""
    return config.model.scratch.encoder or config.model.name


def refuse_what_needs_weights(config: Config) -> None:
    if config.model.scratch.encoder is not None:
        return
    if config.adapter.name != "full":
        raise UserError(
            f"adapter={config.adapter.name} leaves weights as they were pretrained, and model.name=scratch has none: "
            "remove the adapter."
        )
    for name in NEED_WEIGHTS:
        if any(own.name == name for own in config.methods.values()):
            raise UserError(f"methods.{name} pulls towards pretrained weights, and model.name=scratch has none.")


def start_folder(config: Config) -> Path:
    """The folder in the cache, made if it is not there."""
    import datasets  # here: a service does not wait for it

    split, columns = (None, list[str]()) if config.model.scratch.encoder else training_texts(config)
    data = [split.fingerprint, split.drawn, len(split.rows), columns] if split else []
    key = [asdict(config.model.scratch), data, tokenizers.__version__, Path(scratch.__file__).read_text("utf-8")]
    fingerprint = hashlib.sha256(json.dumps(key, default=str).encode()).hexdigest()[:32]
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "scratch" / fingerprint
    if not folder.is_dir():
        make_start(folder, config, texts(split, columns) if split else iter(()))
    return folder


def make_start(folder: Path, config: Config, corpus: Iterator[str]) -> None:
    """Write it beside its place, then rename it; another process may do the same at the same time."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            made = Path(temporary) / "start"
            write_start(made, config.model.scratch, corpus)
            os.rename(made, folder)
    except OSError as error:
        if not folder.is_dir():
            raise UserError(
                f"The new tokenizer cannot be kept in {folder.parent} ({error.strerror or error}); "
                "free space there or set HF_DATASETS_CACHE to a folder with space."
            ) from None


def training_texts(config: Config) -> tuple[Split, list[str]]:
    """The training split as the task reads it, and the columns that hold its texts.

    The task is opened with a tokenizer whose tokens are bytes.
    """
    task = component.load("task", config.task.name)
    with tempfile.TemporaryDirectory() as folder:
        write_start(Path(folder), config.model.scratch, ())
        bare = _at(config, Path(folder))
        try:
            load_config(bare, families=task.Module.heads())  # refuses a family that the task is not for
            data: TaskData = task.Data(bare, load_tokenizer(bare, task.Data.prefix_space))
        except UserError as error:
            raise UserError(str(error).replace(folder, f"model.scratch.family={config.model.scratch.family}")) from None
        split = data.opened_splits("train")["train"]
    held = {*data.texts, *data.text_lists, *data.free}
    return split, [name for name in split.rows.column_names if name in held]


def texts(split: Split, columns: list[str]) -> Iterator[str]:
    """All texts of these columns."""
    for part in split.rows.select_columns(columns).iter(ROWS_AT_ONCE):
        for values in part.values():
            yield from texts_in(list[Any](values))


def _at(config: Config, folder: Path) -> Config:
    return replace(config, model=replace(config.model, name=str(folder)))
