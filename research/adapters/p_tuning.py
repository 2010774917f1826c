"""P-tuning: vectors in front of each sequence, made by a small network that is trained; the model is frozen.

Liu et al. 2021, GPT Understands, Too; the network is the three-layer perceptron of peft. After training only its
outputs are kept in `adapter/`, in peft's format; head and poolers are trained in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from transformers import PreTrainedModel

from research.adapters.prompt_rows import PromptRows, add_prompt
from research.config.key import at_least, key


@dataclass
class Keys:
    tokens: int = key(20, "vectors in front of each sequence", at_least(1))
    hidden: int = key(128, "width of the network that makes them", at_least(1))


class Made(nn.Module):
    """(P, W): a table sent through a perceptron."""

    def __init__(self, P: int, W: int, hidden: int) -> None:
        super().__init__()
        self.rows = nn.Embedding(P, W)
        self.network = nn.Sequential(
            nn.Linear(W, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, W)
        )

    def forward(self) -> Tensor:
        rows: Tensor = self.network(self.rows.weight)
        return rows


class Adapter(PromptRows):
    has_own_file = True
    merges: ClassVar[bool] = False
    peft_type = "P_TUNING"

    def apply(self, model: PreTrainedModel) -> str:
        """Raises UserError for a model that has a prompt already."""
        k = self.keys
        add_prompt(model, lambda table: Made(k.tokens, table.shape[1], k.hidden))
        return f"p_tuning: {k.tokens} vectors in front of each sequence, made by a network of width {k.hidden}"
