"""The training data of each epoch, where they are augmented: other words for the same examples and labels.

What an example is in an epoch belongs to (seed, epoch, id of the example): ranks, workers, micro-batches and resumes
change nothing of it. Validation and test data are never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from research.batching.store import Store
from research.common.errors import UserError
from research.config import component
from research.config.component import Named
from research.data.augment.hooks import Operation, Training
from research.data.augment.words import Words
from research.data.source import Split, file_sha256

if TYPE_CHECKING:
    from research.training.datamodule import Columns, TaskData


def operations_of(sections: Mapping[str, Named]) -> dict[str, Operation]:
    """The operations that a config switches on; those that read whole texts first."""
    made = {name: component.load("augmentation", keys.name).Augmentation(keys) for name, keys in sections.items()}
    on = {name: each for name, each in made.items() if not each.is_off}
    return dict(sorted(on.items(), key=lambda item: not item[1].of_whole_texts))


def epochs_of(data: TaskData) -> EpochStores | None:
    """The training data of each epoch, or the unlabelled texts where there are some; None without `augment`."""
    if data.unlabelled is not None:
        return data.unlabelled.epochs
    operations = operations_of(data.config.augment)
    return EpochStores(data, data.splits["train"], operations, data.config.order_seed) if operations else None


class EpochStores:
    """The store of each epoch; the last two are kept, for the threads that make batches ahead."""

    def __init__(
        self, data: TaskData, split: Split, operations: dict[str, Operation], seed: int,
        finish: Callable[[Store], Store] = lambda store: store,
    ) -> None:  # fmt: skip
        """Raises UserError for a task whose texts may not be changed, and as each operation does."""
        if not data.augmented:
            raise UserError(
                f"augment: task '{data.config.task.name}' is not augmented, for its answers are places in its "
                "texts; classification, multi_label, regression and ner are."
            )
        self.data, self.operations, self.seed, self.finish = data, operations, seed, finish
        self.kept: dict[int, Store] = {}
        self.lock = Lock()
        rows = split.rows
        self.keys = [xxhash.xxh3_64_intdigest(example.encode()) for example in rows["id"]]
        names = [name for name in rows.column_names if name != "__line__"]
        self.columns: Columns = {name: rows[name][:] for name in names}
        self.rows = [dict(zip(names, values, strict=True)) for values in zip(*self.columns.values(), strict=True)]
        self.texts: list[list[Words]] = [data.words(row) for row in self.rows]
        training = Training([words for texts in self.texts for words in texts], data.tagged, data.tokenizer.unk_token)
        for operation in operations.values():
            operation.learn(training)

    def __call__(self, epoch: int) -> Store:
        with self.lock:
            if epoch not in self.kept:
                self.kept[epoch] = self._made(epoch)
                self.kept = dict(sorted(self.kept.items())[-2:])
            return self.kept[epoch]

    def files(self) -> dict[str, str]:
        """sha256 of the files that the operations read, by key: `synonym.table`."""
        return {
            f"{name}.{f.name}": file_sha256(path)
            for name, operation in self.operations.items()
            for f in fields(operation.keys)
            if f.metadata.get("path") and (path := getattr(operation.keys, f.name))
        }

    def changed(self, index: int, epoch: int) -> list[Words]:
        """The texts of an example in an epoch."""
        random = np.random.default_rng([self.seed, epoch, self.keys[index]])
        texts = self.texts[index]
        for operation in self.operations.values():
            if random.random() < operation.keys.share:
                texts = [operation(words, random) for words in texts]
        return texts

    def _made(self, epoch: int) -> Store:
        columns = dict(self.columns)
        for index, row in enumerate(self.rows):
            for name, value in self.data.from_words(row, self.changed(index, epoch)).items():
                if columns[name] is self.columns[name]:
                    columns[name] = list(columns[name])
                columns[name][index] = value
        return self.finish(self.data.augmented_store(columns))
