"""The cache of what frozen layers put out. A folder holds one stream of one split.

Its name is a digest of all that the values depend on: the frozen weights, the encoded examples, the number of layers,
which tokens are kept, micro-batches, precision, device and version of torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from research.adapters.hooks import layer_stacks
from research.batching.features import OFFSETS, ROWS, STORED, Features, checksum
from research.batching.loaders import EvaluationBatches
from research.batching.pack import pack
from research.batching.plan import Indices, evaluation_share
from research.batching.read_tokens import ALL, FIRST, mask_of
from research.batching.store import Store
from research.common.files import umask
from research.models.frozen import frozen_outputs
from research.models.parameters import fingerprint, trained_parameters
from research.training.module import TaskModule

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
EXAMPLES_AT_ONCE = 1000
TEMPORARY_SECONDS = 24 * 3600  # after so long, what begins with a dot was left by a killed process


class Kept:
    """What a run keeps of its splits: these tokens' features, in the precision of its activations."""

    def __init__(self, module: TaskModule, which: str) -> None:
        self.module, self.which = module, which
        self.dtype = DTYPES[module.config.trainer.precision]
        self.width = int(module.backbone.model.config.hidden_size)
        self._model = self._digest_of_model()
        self._offsets: dict[tuple[str, str], Indices] = {}

    def offsets(self, store: Store, stream: str) -> Indices:
        """(examples + 1,) where each example's features begin."""
        place = (store.digest, stream)
        if place not in self._offsets:
            self._offsets[place] = np.concatenate([[0], np.cumsum(counts(store, stream, self.which))])
        return self._offsets[place]

    def bytes_of(self, store: Store) -> int:
        return sum(int(self.offsets(store, name)[-1]) for name in store.streams) * self.width * self.dtype.itemsize

    def size_bytes(self, stores: Mapping[str, Store]) -> int:
        """Of the features of all splits."""
        return sum(self.bytes_of(store) for store in stores.values())

    def has(self, store: Store) -> bool:
        """Are there folders for all streams of a split?"""
        return all(folder.is_dir() for folder in self.folders(store).values())

    def made(self, store: Store, stream: str, folder: Path) -> Features:
        """The features in a folder, computed where they are missing, damaged or of other data.

        Raises OSError where they cannot be kept.
        """
        was_there = folder.exists()
        with suppress(OSError, ValueError, EOFError):
            return self._opened(store, stream, folder)
        if was_there:
            shutil.rmtree(folder)
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            self._write(store, stream, new)
            new.chmod(0o777 & ~umask())
            with suppress(OSError):  # another process was faster
                os.rename(new, folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        try:
            return self._opened(store, stream, folder)
        except (ValueError, EOFError) as error:  # another process has put other files there
            raise OSError(str(error)) from error

    def _opened(self, store: Store, stream: str, folder: Path) -> Features:
        return Features.opened(folder, self.which, self.dtype, self.width, self.offsets(store, stream))

    def folders(self, store: Store) -> dict[str, Path]:
        """Where the features of each stream of a split are kept."""
        names = {stream: f"{stream} {self._model} {store.digest}" for stream in store.streams}
        return {
            stream: cache_folder() / hashlib.sha256(name.encode()).hexdigest()[:32] for stream, name in names.items()
        }

    def _digest_of_model(self) -> str:
        """Of the frozen weights and of all settings that the features depend on."""
        backbone, module = self.module.backbone, self.module
        assert backbone.frozen is not None
        model: Any = backbone.model
        trained = trained_parameters(model)
        [(name, stack)] = layer_stacks(model)
        above = tuple(f"{name}.{i}." for i in range(len(backbone.frozen.layers), len(stack)))
        prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
        state = {
            name: tensor
            for name, tensor in model.base_model.state_dict(prefix=prefix).items()
            if name not in trained and "pooler" not in name and not name.startswith(above)
        }
        settings = [
            len(backbone.frozen.layers), self.which, module.config.trainer.precision, module.budget_tokens,
            next(backbone.parameters()).device.type, torch.__version__, backbone.packed, backbone.reads_alone,
            {key: value for key, value in model.config.to_dict().items() if "label" not in key},
        ]  # fmt: skip
        return json.dumps([fingerprint(state), settings], default=str, sort_keys=True)

    @torch.no_grad()
    def _write(self, store: Store, stream: str, folder: Path) -> None:
        """Compute the features of one stream of a split, in evaluation micro-batches."""
        module, backbone, offsets = self.module, self.module.backbone, self.offsets(store, stream)
        values = self._empty(folder / ROWS, int(offsets[-1]))
        training, device = module.training, next(backbone.parameters()).device
        shares = evaluation_share(store.stream_tokens, 0, 1, module.budget_tokens, not backbone.packed)
        module.eval()
        try:
            for micro in EvaluationBatches(store, shares, backbone.packed):
                own = micro.streams[stream].to(device)
                rows = frozen_outputs(backbone, own, self.which).to(self.dtype).cpu()
                stored = rows.view(torch.int16).numpy() if self.dtype == torch.bfloat16 else rows.numpy()
                examples = np.array(list(dict.fromkeys(own.examples.tolist())))
                ends = np.cumsum(offsets[examples + 1] - offsets[examples])
                for example, part in zip(examples, np.split(stored, ends[:-1]), strict=True):
                    values[offsets[example] : offsets[example + 1]] = part
        finally:
            module.train(training)
        values.flush()
        np.save(folder / OFFSETS, np.append(offsets, checksum(values)))

    def _empty(self, path: Path, rows: int) -> Any:
        """(rows, W), memory-mapped, its space on disk taken: else a full disk would end the process."""
        shape = (rows, self.width)
        values = np.lib.format.open_memmap(path, mode="w+", dtype=STORED[self.dtype], shape=shape)
        with open(path, "r+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return values


def counts(store: Store, stream: str, which: str) -> Indices:
    """How many tokens of each example are kept."""
    columns = store.streams[stream]
    if which == FIRST:
        return columns.windows.lengths().astype(np.int64)
    if which == ALL or columns.marked is None:
        return columns.tokens["input_ids"].lengths().astype(np.int64)
    found = []
    for rows in chunks(len(store)):
        whole = pack(store, rows, packed=False).streams[stream]
        mask = mask_of(which, whole.marked, whole.lengths)
        examples = np.repeat(whole.examples, whole.lengths)
        found.append(np.bincount(examples[mask] - rows[0], minlength=len(rows)))
    return np.concatenate(found).astype(np.int64)


def chunks(count: int) -> Iterator[Indices]:
    for start in range(0, count, EXAMPLES_AT_ONCE):
        yield np.arange(start, min(start + EXAMPLES_AT_ONCE, count))


def cache_folder() -> Path:
    """Beside the encoded data."""
    import datasets  # here: a service does not wait for it

    return Path(datasets.config.HF_DATASETS_CACHE) / "research-features"


def remove_oldest(most_bytes: float, spared: Collection[Path] = ()) -> None:
    """Remove what was not used for longest until all but the spared folders take no more than this."""
    found = []
    for folder in set(cache_folder().iterdir()) - set(spared):
        with suppress(OSError):
            begun = folder.stat().st_mtime
            if not folder.name.startswith(".") or time.time() - begun > TEMPORARY_SECONDS:
                found.append((begun, sum(file.stat().st_size for file in folder.iterdir()), folder))
    total = sum(size for _, size, _ in found)
    for _, size, folder in sorted(found):
        if total <= most_bytes:
            break
        shutil.rmtree(folder, ignore_errors=True)
        total -= size
