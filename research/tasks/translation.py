"""Translation: a text in one language becomes a text in another. Scored by BLEU (Post 2018, sacrebleu)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from research.config.generation import GenerationKeys
from research.config.key import at_least, key
from research.tasks.text_output import TextData, TextModule


@dataclass
class Keys(GenerationKeys):
    template: str | None = key(None, "what the model reads, such as `translate English to German: {source}`")
    max_target_tokens: int = key(128, "targets are cut to so many tokens in the loss, never in the scores", at_least(2))
    bleu_tokenizer: Literal["13a", "zh", "intl", "char", "none"] = key("13a", "of sacrebleu; zh for Chinese targets")


class Data(TextData):
    metric = "bleu"

    def score_settings(self) -> dict[str, Any]:
        return {"tokenizer": self.config.task.bleu_tokenizer}


class Module(TextModule):
    monitor = "bleu"
