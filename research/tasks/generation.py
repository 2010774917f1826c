"""Generation: a prompt is completed, as in instruction tuning. Columns `prompt` and `completion`, or others by a
template: `template: "{instruction}\\n\\n{input}\\n\\n"` with `data.columns: {target: output}`."""

from __future__ import annotations

from dataclasses import dataclass

from research.config.generation import GenerationKeys
from research.config.key import key
from research.tasks.text_data import TextData
from research.tasks.text_keys import METRICS, TextKeys
from research.tasks.text_output import TextModule


@dataclass
class Keys(TextKeys, GenerationKeys):
    metrics: list[str] = key(["rouge", "answers"], "what scores the outputs; the first decides", *METRICS)


class Data(TextData):
    fields = {"source": "prompt", "target": "completion"}


class Module(TextModule):
    monitor = "rouge_l"
