"""Generative question answering, with a context or from memory: the model writes the answer.

Columns `question`, `answers` (a text, a list of texts, or SQuAD's), and optionally `context`, which alone is cut where
it is too long. Scored by exact match and token F1, the best of the answers (`research/metrics/answers.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from research.config.generation import GenerationKeys
from research.config.key import at_least, key
from research.data.prompt import Template
from research.data.source import Split
from research.models.load import DECODER
from research.tasks.text_data import TextData
from research.tasks.text_keys import METRICS, TextKeys
from research.tasks.text_output import TextModule


@dataclass
class Keys(TextKeys, GenerationKeys):
    max_target_tokens: int = key(32, "targets are cut to so many tokens in the loss, never in the scores", at_least(2))
    max_new_tokens: int = key(32, "tokens of the longest output", at_least(1))
    metrics: list[str] = key(["answers"], "what scores the outputs; the first decides", *METRICS)
    rules: Literal["squad", "cmrc"] = key("squad", "how answers are compared: squad (English) or cmrc (Chinese)")


class Data(TextData):
    fields = {"question": "question", "context": "context", "answers": "answers"}
    optional = ("context",)
    gold = ("answers",)
    texts = ("question", "context")
    free = ("answers",)

    def template_of(self, columns: Sequence[str]) -> Template:
        """The question behind its context, where there is one."""
        if self.template is not None:
            return self.template
        plain = "question: {question}" + (" context: {context}" if "context" in columns else "")
        text = "Context: {context}\nQuestion: {question}" if "context" in columns else "Question: {question}"
        if self.family != DECODER:
            return Template(plain)  # as T5 was trained
        return Template(text if self.chat is not None else f"{text}\nAnswer:")

    def gold_table(self, split: Split) -> pa.Table | None:
        return pa.table({"gold": self.golds(split.rows[:], len(split.rows))})

    def score_settings(self) -> dict[str, Any]:
        return {**super().score_settings(), "rules": self.config.task.rules}


class Module(TextModule):
    monitor = "f1"
