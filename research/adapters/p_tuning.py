"""P-tuning: vectors in front of each sequence, made by a small network that is trained; the model is frozen.

Liu et al. 2021, GPT Understands, Too; the network is the three-layer perceptron of peft. After training only its
outputs are kept in `adapter/`, in peft's format; head and poolers are trained in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedModel

from research.adapters.hooks import AdapterHooks
from research.adapters.prompt_rows import add_prompt, feed_prompt, prompt_of, save_prompt, without_prompt
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


class Adapter(AdapterHooks):
    has_own_file = True
    merges: ClassVar[bool] = False

    def apply(self, model: PreTrainedModel) -> str:
        """Raises UserError for a model that has a prompt already."""
        k = self.keys
        add_prompt(model, lambda table: Made(k.tokens, table.shape[1], k.hidden))
        return f"p_tuning: {k.tokens} vectors in front of each sequence, made by a network of width {k.hidden}"

    def feed(self, backbone: Any, longest: int) -> None:
        feed_prompt(backbone, self.keys.tokens, longest)

    def plain_state(self, model: PreTrainedModel, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return without_prompt(state)

    def export(
        self, model: PreTrainedModel, state: dict[str, Tensor], base: str, revision: str | None, folder: Path
    ) -> None:
        """What `PeftModel.from_pretrained` opens: the vectors made, with head and poolers."""
        save_prompt("P_TUNING", prompt_of(model), model, state, base, revision, folder)
