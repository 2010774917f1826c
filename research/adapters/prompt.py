"""Prompt tuning: trained vectors stand in front of each sequence; the model is frozen.

Lester, Al-Rfou and Constant 2021, The Power of Scale for Parameter-Efficient Prompt Tuning. The vectors begin as those
of words of the vocabulary, drawn by the seed. In an encoder-decoder they stand in front of the source. As in peft, a
pooler reads the first vector. The file format is peft's; head and poolers are trained in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from research.adapters.prompt_rows import PromptRows, add_prompt
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


class Adapter(PromptRows):
    has_own_file = True
    merges: ClassVar[bool] = False
    peft_type = "PROMPT_TUNING"

    def apply(self, model: PreTrainedModel) -> str:
        """Raises UserError for a model that has a prompt already."""
        P = self.keys.tokens
        add_prompt(model, lambda table: Rows(table[torch.randint(len(table), (P,))].clone()))
        return f"prompt: {P} trained vectors in front of each sequence"
