"""What every task's data share: from files to encoded splits to steps.

A task's `Data(TaskData)` says what it reads, how an example is encoded, and what the predictions file holds.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from research.batching.loaders import EvaluationBatches, StepLoader
from research.batching.pack import Plan, Planner
from research.batching.plan import Layout, StepPlan, evaluation_share
from research.batching.store import Store
from research.common.errors import UserError
from research.config.schema import Config, DataConfig
from research.data.augment.words import Words, text_of, words_of
from research.data.encoded import encoded, source_digest
from research.data.formats import Reading
from research.data.label_values import read_descriptions
from research.data.labels import refuse_other_labels
from research.data.overview import SplitOverview, refuse_overlap, refuse_same_file
from research.data.source import Split
from research.data.splits import evaluation_sample, splits_asked
from research.metrics import metric_of, resolved
from research.metrics.base import BaseMetric
from research.training.bases import LightningDataModule
from research.training.class_weights import class_weights
from research.training.declared_columns import open_declared, refuse_keys_of_classes, refuse_way_with_long_texts
from research.training.encoded_overview import encoded_overview
from research.training.epochs import EpochStores
from research.training.plain_trainer import padded_layout
from research.training.unlabelled import Unlabelled, extend_training

Columns = dict[str, list[Any]]
NOT_ENCODED = (  # keys of `data` that say which rows there are, or act after encoding
    "train", "validation", "test", "max_train_examples", "max_eval_examples", "num_workers", "title", "cluster",
    "group", "split_seed", "folds", "fold", "sample", "max_overlap", "shots", "shots_seed", "ids", "unlabelled",
    "unlabelled_ratio", "label_descriptions",
)  # fmt: skip


class TaskData(LightningDataModule):
    """The splits of an experiment, opened and encoded once, and cut into steps."""

    fields: ClassVar[dict[str, str]]  # what the task reads -> the usual column of the data
    optional: ClassVar[tuple[str, ...]] = ()  # fields the data may lack
    gold: ClassVar[tuple[str, ...]] = ("label",)  # fields unlabelled text lacks
    texts: ClassVar[tuple[str, ...]] = ("text",)  # fields that hold text
    long: ClassVar[tuple[str, ...]] = ()  # what it does with long texts where data.long says so; the first by default
    free: ClassVar[tuple[str, ...]] = ()  # fields that hold values of any shape, which the task reads itself
    text_lists: ClassVar[tuple[str, ...]] = ()  # fields that hold lists of text
    aligned: ClassVar[tuple[str, ...]] = ()  # fields that hold lists of equal lengths
    prefix_space: ClassVar[bool] = True  # is the first word of a text encoded as those that follow a space?
    token_columns: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids")
    window_columns: ClassVar[tuple[str, ...]] = ()
    metric: ClassVar[str]  # what scores the predictions: a file of research.metrics, a module or a path
    class_column: ClassVar[str | None] = "label"  # of the store: the classes that weights are for; None: no classes
    augmented: ClassVar[tuple[str, ...]] = ()  # fields whose words `augment` may change without a change of the answer
    tagged: ClassVar[bool] = False  # do their words have tags?
    answers_alone: ClassVar[bool] = True  # is the answer to a row the same whatever other rows there are?
    not_alone: ClassVar[str] = "answers for all rows of a file together: use research predict"  # where it is not
    learned_names: ClassVar[tuple[str, ...]] = ("labels",)  # attributes that `collect` learns

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__()
        self.config, self.tokenizer = config, tokenizer
        self.tokenizer_as_loaded = tokenizer.backend_tokenizer.to_str()  # encoding leaves settings in it
        self.splits: dict[str, Split] = {}
        self.overview: dict[str, SplitOverview] = {}  # of the splits that training opened
        self.cut: dict[str, int] = {}  # examples of a split that lost text at data.max_length
        self.several: dict[str, int] = {}  # and that are read in several windows
        self.cut_targets: dict[str, int] = {}  # and of whose gold text the loss reads the beginning alone
        self.stores: dict[str, Store] = {}
        self.labels: list[str] = []
        self.descriptions: dict[str, str] = {}  # of labels
        self.tested = "test"  # the split that testing runs over
        self.validated = "validation"  # and validation: `sample` in training with trainer.evaluate_examples
        self.class_weights: NDArray[np.float64] | None = None
        self.unlabelled: Unlabelled | None = None  # where a method reads unlabelled texts beside the training data
        self.epochs: EpochStores | None = None  # where `augment` changes the training data, or those, in each
        self.layout: Callable[[], Layout] = lambda: padded_layout(self)  # or its module's; asked with each loader

    @abstractmethod
    def collect(self, splits: Sequence[Split]) -> list[str]:
        """The labels, declared or collected over all splits."""

    @abstractmethod
    def encode(self, rows: Columns) -> Columns:
        """Rows of a split -> columns of the store (see `research.data.store`)."""

    def encode_reads(self) -> list[Any]:
        """What `encode` reads beside the rows, the config, the labels and the tokenizer; values for JSON."""
        return []

    @abstractmethod
    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        """Columns `gold`, `prediction` and what the task adds, one row per example, for the predictions file."""

    def gold_table(self, split: Split) -> pa.Table | None:
        """Texts and gold answers of a split for the metric's baselines that learn from those of training; None where it
        has no such baselines."""
        return None

    def places(
        self, found: dict[str, Any], answer: dict[str, Any], words: Sequence[tuple[int, int]] | None
    ) -> dict[str, Any]:
        """What a served answer says beside a row of the predictions file: where in the text its parts stand.

        `found`: what the module decoded; `words`: first character and end of each word, where a text was split.
        """
        return {}

    @property
    def head(self) -> Sequence[str]:
        """Names of the head's outputs; none where the head has a fixed size."""
        return self.labels

    @property
    def metric_name(self) -> str:
        """The metric's name; the path of a user's file is looked up from the task's own file."""
        return resolved(self.metric, Path(inspect.getfile(type(self))))

    def score_settings(self) -> dict[str, Any]:
        """What the metric needs beside the rows; the predictions file holds it."""
        return {"labels": self.labels}

    @property
    def scorer(self) -> BaseMetric:
        """The metric with this experiment's settings."""
        return metric_of({"scorer": self.metric_name, **self.score_settings()})

    def use_validation_scores(self, validation: Mapping[str, float]) -> None:
        """Take what the best validation scores decide for all other data, such as a threshold."""

    def learned(self) -> dict[str, Any]:
        """What all splits together showed. A finished run keeps it: one split alone may show less."""
        described = {"descriptions": self.descriptions} if self.descriptions else {}
        return {**{name: getattr(self, name) for name in self.learned_names}, **described}

    def recall(self, learned: Mapping[str, Any]) -> None:
        """Take over what a finished run had `learned`; one of an earlier version may lack a name."""
        for name in learned.keys() & set(self.learned_names):
            setattr(self, name, learned[name])
        self.descriptions = learned.get("descriptions", {})

    def refuse_other_labels(self, split: Split) -> None:
        """Raise UserError at the first row of new data whose gold answer a finished run cannot give."""
        if self.labels:
            refuse_other_labels(split, "label", self.labels)

    def open(self, learned: Mapping[str, Any] | None = None, only: str | None = None) -> None:
        """Open and encode every split the experiment names, or `only` one of them."""
        refuse_keys_of_classes(self)
        refuse_way_with_long_texts(self)
        if learned is not None:
            self.recall(learned)
        self.splits = self.opened_splits(only)
        if learned is None:
            refuse_same_file(self.splits, self.config.data)
            self.labels = self.collect(list(self.splits.values()))
            self.descriptions = read_descriptions(self.config.data.label_descriptions, self.labels)
        for name, split in self.splits.items():
            self.stores[name] = self.make_store(split)
        if learned is None:
            self.overview = self._overview()
            refuse_overlap(self.splits, self.overview, self.config.data.max_overlap)
            if self.config.trainer.evaluate_examples is not None and only is None:
                self._draw_evaluation_sample(self.config.trainer.evaluate_examples)
        if self.class_column and "train" in self.stores:
            self.class_weights = class_weights(self.config.optim, self.labels, self.stores["train"], self.class_column)
        if "train" in self.stores:
            self._weigh(self.stores["train"])
            if learned is None:
                extend_training(self)

    def _draw_evaluation_sample(self, size: int) -> None:
        sample = evaluation_sample(self.splits, self.config.data, self.class_column is not None, size)
        self.splits["sample"], self.stores["sample"] = sample, self.make_store(sample)

    def _weigh(self, store: Store) -> Store:
        if self.class_weights is not None and self.class_column:
            store.weigh(self.class_column, self.class_weights)
        return store

    def words(self, row: Mapping[str, Any]) -> list[Words]:
        """The texts of a row that `augment` may change, as words."""
        return [words_of(row[field]) for field in self.augmented if row.get(field) is not None]

    def from_words(self, row: Mapping[str, Any], texts: Sequence[Words]) -> Mapping[str, Any]:
        """The fields of a row that `words` reads, with other words."""
        there = [field for field in self.augmented if row.get(field) is not None]
        return {field: text_of(words) for field, words in zip(there, texts, strict=True)}

    def encode_augmented(self, rows: Columns) -> Columns:
        """`encode` for rows with the fields that `from_words` makes."""
        return self.encode(rows)

    def training_store(self, step: int) -> Store:
        """The training data at an optimiser step, whose epoch may have its own."""
        if self.unlabelled is not None:
            return self.unlabelled.store(step)
        return self.stores["train"] if self.epochs is None else self.epochs(step // self.plan.steps_per_epoch)

    @property
    def inputs(self) -> list[str]:
        """The columns that make an example's text."""
        return [field for field in self.fields if field in (*self.texts, *self.text_lists) and field not in self.gold]

    def _overview(self) -> dict[str, SplitOverview]:
        """What the splits hold, with the lengths of the encoded examples."""
        return encoded_overview(self)

    def opened_splits(self, only: str | None = None) -> dict[str, Split]:
        """The splits that the experiment names, or `only` one of them, opened and not encoded."""
        return splits_asked(self.config, self._open, self.class_column is not None, only)

    @property
    def long_texts(self) -> str:
        """What becomes of a text longer than `data.max_length`: one of `research.data.long_texts`."""
        return self.config.data.long or self.long[0]

    def open_input(self, path: str, learned: Mapping[str, Any]) -> None:
        """Open new text, with or without gold answers, as the split `input`."""
        self.recall(learned)
        self.splits["input"] = self._open(replace(self.config.data, name=None), "input", path, None)
        self.stores["input"] = self.make_store(self.splits["input"])

    def _open(self, data: DataConfig, name: str, value: str, limit: int | None) -> Split:
        return self.prepared(open_declared(self, data, name, value, limit))

    def prepared(self, split: Split) -> Split:
        """A split as the task reads it, with columns of its own making."""
        return split

    def reading(self, data: DataConfig) -> Reading:
        """How text files are read where their name and content do not say it."""
        return Reading(
            data.format, data.encoding, "\t" if data.separator == "tab" else data.separator, data.quoting, data.header,
            data.columns.get("tokens"), data.columns.get("tags"),
        )  # fmt: skip

    def make_store(self, split: Split) -> Store:
        """Encode a split, once for its rows, tokenizer, settings and code."""
        settings = {key: value for key, value in asdict(self.config.data).items() if key not in NOT_ENCODED}
        rows, code = [split.fingerprint, split.drawn, len(split.rows)], source_digest(type(self))
        task, reads = asdict(self.config.task), self.encode_reads()
        key = [rows, self.learned(), self.tokenizer_as_loaded, settings, task, code, reads]
        try:
            examples = encoded(split.rows, self.encode, key, f"Tokenising {split.name}")
        except UserError as error:  # `encode` knows the row, not the file
            raise UserError(f"{split.origin}, {error}") from None
        for name, counted in (("cut", self.cut), ("several", self.several), ("cut_target", self.cut_targets)):
            if name in examples.column_names:
                counted[split.name] = sum(examples[name])
        return self._store(examples.data.table)

    def augmented_store(self, rows: Columns) -> Store:
        """A store of augmented training rows, which is kept in memory alone."""
        encoded = self.encode_augmented(rows)
        table = pa.table({name: pa.chunked_array([pa.array(column)]) for name, column in encoded.items()})
        return self._weigh(self._store(table))

    def _store(self, table: pa.Table) -> Store:
        columns = [name for name in self.token_columns if name in table.column_names]
        return self.marked_store(Store(table, columns, self.window_columns))

    def marked_store(self, store: Store) -> Store:
        """A store that says which tokens the head reads, where the task has such."""
        return store

    @property
    def plan(self) -> Plan:
        if self.unlabelled is not None:
            return self.unlabelled.plan
        return StepPlan(len(self.stores["train"]), self.config.optim.batch_size, self.config.order_seed)

    def train_dataloader(self) -> Any:
        """The steps from where training stands to the next evaluation."""
        layout = self.layout()
        planner = Planner(
            self.stores["train"], self.plan, layout.rank, layout.ranks,
            layout.budget_tokens, layout.packed, layout.sparse_rows, layout.sharded, self.training_store,
        )  # fmt: skip
        return StepLoader(planner, lambda: self.layout().steps, self.config.data.num_workers)

    def evaluation_batches(self, split: str) -> EvaluationBatches:
        """This rank's micro-batches of a split."""
        layout, store = self.layout(), self.stores[split]
        shares = [
            evaluation_share(store.stream_tokens, rank, layout.ranks, layout.budget_tokens, not layout.packed)
            for rank in (range(layout.ranks) if layout.sharded else [layout.rank])
        ]
        rows = shares[layout.rank if layout.sharded else 0]
        least = max(1, *map(len, shares))  # Lightning leaves a rank without batches out, and the others would wait
        return EvaluationBatches(store, rows, layout.packed, least)

    def val_dataloader(self) -> Any:
        return self.evaluation_batches(self.validated) if "validation" in self.stores else []

    def test_dataloader(self) -> Any:
        return self.evaluation_batches(self.tested)

    def predict_dataloader(self) -> Any:
        return self.evaluation_batches("input")
