"""Translation: a text in one language becomes a text in another. Scored by BLEU (Post 2018), chrF++ and TER."""

from __future__ import annotations

from dataclasses import dataclass

from research.config.generation import GenerationKeys
from research.config.key import key
from research.tasks.text_data import TextData
from research.tasks.text_keys import METRICS, TextKeys
from research.tasks.text_output import TextModule


@dataclass
class Keys(TextKeys, GenerationKeys):
    metrics: list[str] = key(["bleu", "chrf", "ter"], "what scores the outputs; the first decides", *METRICS)


class Data(TextData):
    pass


class Module(TextModule):
    monitor = "bleu"
