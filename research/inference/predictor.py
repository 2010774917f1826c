"""A finished run kept in memory, that labels rows without files: what `research serve` asks.

Each row is encoded once, by the task's own `encode`; rows that are answered together are one packed micro-batch,
decoded and tabulated by the task. So an answer is what `research predict` writes for the same row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from transformers import PreTrainedModel

from research.batching.pack import MicroBatch, pack
from research.batching.store import Store
from research.common.errors import UserError
from research.config import component
from research.config.schema import Config
from research.data.source import Split
from research.data.words import word_places
from research.inference.finished_config import finished_config
from research.inference.finished_run import finished_result
from research.models.generate import Generator, Watcher
from research.models.load import load_model, load_tokenizer
from research.tracking.run import Run
from research.training.build import build
from research.training.datamodule import Columns, TaskData

Row = dict[str, Any]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LEAST_CHARACTERS, CHARACTERS_PER_TOKEN = 20_000, 40  # longest text; the tokenizer reads all of it before it cuts


class BadInput(UserError):
    """A row that cannot be labelled, and why."""


class Rows(list[Row]):
    """Rows in memory, read as the rows of a split are: by index, a column by its name, all columns by a slice."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(rows)
        self.column_names = list(rows[0]) if rows else []

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return {name: [row[name] for row in super(Rows, self).__getitem__(key)] for name in self.column_names}
        return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)

    def __iter__(self) -> Iterator[Row]:
        return super().__iter__()


@dataclass(frozen=True)
class Trained:
    """What labelling new text needs of a finished run; an exported folder keeps it."""

    config: Config  # with the trained model in the place of the pretrained one
    learned: Mapping[str, Any]  # what all splits together showed, such as the labels
    validation: Mapping[str, float]  # the scores, which may decide a threshold
    base_model: str  # what was fine-tuned


def trained_of(run: Run) -> Trained:
    """Of a finished run. Raises UserError for one that is not finished or whose model has changed."""
    result = finished_result(run)
    return Trained(finished_config(run), result["learned"], result["metrics"]["validation"], run.config.model.name)


@dataclass
class Question:
    """One row that waits for its answer."""

    row: Row
    encoded: Columns  # of this row alone
    tokens: int  # of all its windows
    truncated: bool  # whether its text was cut at data.max_length
    offsets: list[tuple[int, int]] | None = None  # of the words of a text that was split here
    watcher: Watcher | None = None  # of the text that is generated


class Predictor:
    """A trained model with its task's encoding and decoding."""

    def __init__(
        self, trained: Trained, precision: str | None = None, load: Callable[..., PreTrainedModel] = load_model
    ) -> None:
        """`precision` of the activations: that of the training by default. `load` makes the model."""
        config = trained.config
        config.trainer.sparse_embedding = False  # it serves training alone
        if config.trainer.precision == "fp16" and not torch.cuda.is_available():
            config.trainer.precision = "fp32"
        config.trainer.precision = precision or config.trainer.precision  # type: ignore[assignment]
        self.trained, self.config = trained, config
        task = component.load("task", config.task.name)
        if not task.Data.answers_alone:
            raise UserError(f"task '{config.task.name}' {task.Data.not_alone}.")
        self.data: TaskData = task.Data(config, load_tokenizer(config, task.Data.prefix_space))
        self.data.use_validation_scores(trained.validation)
        self.data.recall(trained.learned)
        self.module = build(config, self.data, load=load).eval()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.module.to(self.device)
        self.dtype = DTYPES[config.trainer.precision]
        self.generator: Generator | None = getattr(self.module, "generate", None)
        if self.generator is not None:
            self.generator.alone = True
        gold = {*self.data.gold, *self.data.optional}
        self.required = [field for field in self.data.fields if field not in gold]
        self.longest_text = max(LEAST_CHARACTERS, CHARACTERS_PER_TOKEN * config.data.max_length)

    def use_engine(self, engine: nn.Module) -> None:
        """Compute with another engine, which takes padded inputs and returns the model's outputs."""
        self.module.backbone.model = engine  # type: ignore[assignment]
        self.module.backbone.packed = False

    @property
    def budget_tokens(self) -> int:
        """Tokens that are computed together."""
        return self.module.budget_tokens

    @property
    def fields(self) -> list[str]:
        """What a row may hold."""
        return [field for field in self.data.fields if field not in self.data.gold]

    def question(self, given: Mapping[str, Any]) -> Question:
        """Check and encode one row. Raises BadInput for one that cannot be labelled."""
        row, offsets = self._row(given)
        try:
            row = self._prepared({"id": "0", **row})
            columns = self.data.encode({field: [value] for field, value in row.items()})
        except UserError as error:
            raise BadInput(str(error)) from None
        tokens = sum(len(values[0]) for name, values in columns.items() if name.split(".")[-1] == "input_ids")
        if tokens == 0:
            raise BadInput("there is no text to label")
        return Question(row, columns, tokens, bool(columns.get("cut", [False])[0]), offsets)

    def _prepared(self, row: Row) -> Row:
        """A row with the columns of the task's own making."""
        if type(self.data).prepared is TaskData.prepared:
            return row
        import datasets  # here: most tasks are served without it

        split = Split("input", datasets.Dataset.from_list([row]), "the request", lines=False, fingerprint="")
        rows = self.data.prepared(split).rows
        if len(rows) != 1:
            raise BadInput(f"the row is {len(rows)} examples; label it with research predict, or give them one by one")
        return dict(rows[0])

    def _row(self, given: Mapping[str, Any]) -> tuple[Row, list[tuple[int, int]] | None]:
        """The task's fields of a row, by their own names or by those of the training data's columns."""
        names = {self.config.data.columns.get(field, usual): field for field, usual in self.data.fields.items()}
        row: Row = {}
        for name, value in given.items():
            field = name if name in self.fields else names.get(name, "tokens" if name == "text" else name)
            if field not in self.fields:
                raise BadInput(f"unknown field '{name}'; the fields are {', '.join(self.fields)}")
            row[field] = value
        offsets = None
        if "tokens" in self.required and "text" not in self.fields and isinstance(row.get("tokens"), str):
            text, offsets = row["tokens"], word_places(row["tokens"])
            row["tokens"] = [text[start:end] for start, end in offsets]
        missing = [field for field in self.required if row.get(field) is None]
        if missing:
            raise BadInput(f"the field '{missing[0]}' is missing; a row needs {', '.join(self.required)}")
        for field, value in row.items():
            self._refuse_other_than_text(field, value)
        return row, offsets

    def _refuse_other_than_text(self, field: str, value: Any) -> None:
        texts = value if field in self.data.text_lists and isinstance(value, list) else [value]
        if field in (*self.data.texts, *self.data.text_lists):
            if field in self.data.text_lists and not isinstance(value, list):
                raise BadInput(f"'{field}' must be a list of texts")
            if not all(isinstance(text, str) for text in texts) and (value is not None or field in self.required):
                raise BadInput(f"'{field}' must be text")
            if not texts or not any(text and text.strip() for text in texts if text is not None):
                raise BadInput(f"'{field}' is empty")
        characters = sum(len(text) for text in texts if isinstance(text, str))
        if characters > self.longest_text:
            raise BadInput(f"'{field}' has {characters} characters; at most {self.longest_text} are read")

    @torch.inference_mode()
    def outputs(self, questions: Sequence[Question]) -> tuple[MicroBatch, Any]:
        """The head's outputs for questions that are computed together."""
        table = pa.table({name: [question.encoded[name][0] for question in questions] for name in questions[0].encoded})
        names = [name for name in self.data.token_columns if name in table.column_names]
        store = Store(table, names, self.data.window_columns)
        store = self.data.marked_store(store)
        micro = pack(store, np.arange(len(questions)), self.module.backbone.packed).to(self.device)
        with self._in_precision():
            return micro, self.module.outputs(micro)

    def _in_precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.dtype) if self.dtype != torch.float32 else nullcontext()

    @torch.inference_mode()
    def decoded(self, questions: Sequence[Question]) -> dict[int, dict[str, Any]]:
        """What the module reads from the outputs for each of the questions that are computed together."""
        if self.generator is not None:
            self.generator.watchers = [question.watcher for question in questions]
        with self._in_precision():  # text is generated in decode
            return self.module.decode(*self.outputs(questions))

    def columns(self, questions: Sequence[Question], found: dict[int, dict[str, Any]] | None = None) -> Columns:
        """What a predictions file holds of questions that are computed together, but for the gold answers."""
        found = self.decoded(questions) if found is None else found
        rows = Rows([question.row for question in questions])
        split = Split(name="input", rows=rows, origin="the request", lines=False, fingerprint="")
        columns = {name: values for name, values in self.data.table(split, found).items() if name != "gold"}
        return {name: values.to_pylist() if isinstance(values, pa.Array) else values
                for name, values in columns.items()}  # fmt: skip

    def answer(self, questions: Sequence[Question]) -> list[Row]:
        """The answers to questions that are computed together: what `research predict` writes for each row.

        Raises FloatingPointError where the model gives numbers that are none.
        """
        found = self.decoded(questions)
        columns = self.columns(questions, found)
        answers = [plain({name: values[i] for name, values in columns.items()}) for i in range(len(questions))]
        for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            answer.update(self.data.places(found[i], answer, question.offsets))
            if "probabilities" in answer and self.data.labels:
                answer["probabilities"] = dict(zip(self.data.labels, answer["probabilities"], strict=False))
            if question.offsets is not None:
                answer["offsets"] = question.offsets
            if question.truncated:
                answer["truncated"] = True
        return answers


def plain(value: Any) -> Any:
    """A value as JSON has it. Raises FloatingPointError for NaN and for an infinity."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        raise FloatingPointError("the model gave a number that is none (NaN or infinite)")
    return value
