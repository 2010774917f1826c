"""Summarisation: a document becomes a shorter text. Scored by ROUGE (Lin 2004); see `research/metrics/rouge.py`."""

from __future__ import annotations

from dataclasses import dataclass

from research.config.generation import GenerationKeys
from research.config.key import key
from research.tasks.text_data import TextData
from research.tasks.text_keys import METRICS, TextKeys
from research.tasks.text_output import TextModule


@dataclass
class Keys(TextKeys, GenerationKeys):
    metrics: list[str] = key(["rouge"], "what scores the outputs; the first decides", *METRICS)


class Data(TextData):
    pass


class Module(TextModule):
    monitor = "rouge_l"
