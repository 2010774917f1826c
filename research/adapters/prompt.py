"""Prompt tuning: trained vectors stand in front of each sequence; the model is frozen.

Lester, Al-Rfou and Constant 2021, The Power of Scale for Parameter-Efficient Prompt Tuning. The vectors begin as those
of words of the vocabulary, drawn by the seed. In an encoder-decoder they stand in front of the source. As in peft, a
pooler reads the first vector. The file format is peft's; head and poolers are trained in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from research.adapters.hooks import AdapterHooks
from research.adapters.prompt_rows import add_prompt, feed_prompt, prompt_of, save_prompt, without_prompt
from research.config.key import at_least, key


@dataclass
class Keys:
    tokens: int = key(20, "vectors in front of each sequence", at_least(1))


class Rows(nn.Module):
    """A table of (P, W)."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows)

    def forward(self) -> Tensor:
        return self.rows


class Adapter(AdapterHooks):
    has_own_file = True
    merges: ClassVar[bool] = False

    def apply(self, model: PreTrainedModel) -> str:
        """Raises UserError for a model that has a prompt already."""
        P = self.keys.tokens
        add_prompt(model, lambda table: Rows(table[torch.randint(len(table), (P,))].clone()))
        return f"prompt: {P} trained vectors in front of each sequence"

    def feed(self, backbone: Any, longest: int) -> None:
        feed_prompt(backbone, self.keys.tokens, longest)

    def plain_state(self, model: PreTrainedModel, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return without_prompt(state)

    def export(
        self, model: PreTrainedModel, state: dict[str, Tensor], base: str, revision: str | None, folder: Path
    ) -> None:
        """What `PeftModel.from_pretrained` opens: the vectors, with head and poolers."""
        save_prompt("PROMPT_TUNING", prompt_of(model), model, state, base, revision, folder)
