"""How the tests build the tasks with text answers on a few rows, and what a decoder reads of them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from research.batching.pack import pack
from research.config.load import load_config
from research.config.schema import Config
from research.models.generate import prompts
from research.training.build import build, open_data
from tests.conftest import copied, write_experiment, write_jsonl
from tests.tasks.test_translation import make_model, text

CHAT = (
    "{% for m in messages %}[CLS]{{ m.role }} : {{ m.content }}[SEP]{% endfor %}"
    "{% if add_generation_prompt %}[CLS]assistant : {% endif %}"
)
Rows = list[dict[str, Any]]


@cache
def gpt2() -> Path:
    """A small random decoder, made once a process."""
    folder = Path(tempfile.mkdtemp(prefix="gpt2-"))
    atexit.register(shutil.rmtree, folder)
    return make_model(folder / "gpt2", "gpt2")


def configured(folder: Path, task: dict[str, Any], rows: Rows, *keys: str, model: Path | None) -> Config:
    """A task on rows that serve as training data and, in a copy, as validation data."""
    file = write_jsonl(folder / "rows.jsonl", rows)
    (folder / "chat.jinja").write_text(CHAT)
    data = {"train": str(file), "validation": copied(file), "max_length": 32, "max_overlap": 1.0}
    keys_of_task = {"max_new_tokens": 8, "max_target_tokens": 8, **task}
    return load_config(write_experiment(folder / "e.yaml", keys_of_task, model or gpt2(), data), keys)


def built(folder: Path, task: dict[str, Any], rows: Rows, *keys: str, model: Path | None = None) -> Any:
    return build(configured(folder, task, rows, *keys, model=model))


def opened(folder: Path, task: dict[str, Any], rows: Rows, *keys: str, model: Path | None = None) -> Any:
    """The data alone."""
    return open_data(configured(folder, task, rows, *keys, model=model))


def first_row(data: Any, row: int = 0) -> tuple[list[str], list[str], list[str]]:
    """What a decoder reads of an example, what it predicts, and the prompt it generates from, as pieces."""
    micro = pack(data.stores["train"], np.array([row]))
    tokenizer, labels = data.tokenizer, micro.tokens["label"]
    return (
        text(tokenizer, micro.tokens["input_ids"]), text(tokenizer, labels[labels >= 0]),
        text(tokenizer, prompts(micro)[0]),
    )  # fmt: skip
