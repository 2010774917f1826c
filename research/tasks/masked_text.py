"""What masked language modelling and next-sentence prediction share: masks that are drawn for each epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from research.batching.masking import Masking
from research.batching.pack import MicroBatch
from research.batching.store import NO_TARGET
from research.common.errors import UserError
from research.config.key import inside, key
from research.config.schema import Config
from research.tasks.plain_text import PlainTextData, PlainTextModule

EVALUATION = 1 << 40  # the epoch of masks in evaluation, always the same


@dataclass
class MaskedKeys:
    mask_rate: float = key(0.15, "share of the tokens that are predicted", inside("(0, 1)"))
    mask_unit: Literal["token", "word", "span"] = key(
        "token", "what is masked at a time: tokens, whole words, or spans of words as in SpanBERT"
    )


class MaskedData(PlainTextData):
    """Encoded with the column `word`: the word of each token in its sequence, -1 for special tokens."""

    masked = True
    answers_alone = False  # which tokens are masked depends on a row's place in the file

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        if tokenizer.mask_token_id is None:
            raise UserError(
                f"The tokenizer of {config.model.name} has no mask token, which this task needs; add one to it."
            )
        special = set(tokenizer.all_special_ids)
        plain = [i for i in range(len(tokenizer)) if i not in special]
        keys = config.task
        self.masking = Masking(
            keys.mask_unit, keys.mask_rate, tokenizer.mask_token_id, np.array(plain, np.int64), config.order_seed
        )

    @property
    def conditions(self) -> list[str]:
        keys = self.config.task
        return [f"masked:{keys.mask_unit}", f"rate:{keys.mask_rate}", f"seed:{self.config.order_seed}"]


class MaskedModule(PlainTextModule):
    draws_tokens = True

    @property
    def epoch(self) -> int:
        """Of the masks."""
        return self.step // self.data.plan.steps_per_epoch if self.training else EVALUATION

    def targets_of(self, micro: MicroBatch) -> tuple[MicroBatch, Tensor]:
        stream = micro.first
        ids, words = (stream.tokens[name].cpu().numpy() for name in ("input_ids", "word"))
        masking: Masking = self.data.masking  # type: ignore[attr-defined]
        masked, chosen = masking(ids, words, stream.lengths, stream.examples, self.epoch)
        device = stream.positions.device
        labels = torch.from_numpy(np.where(chosen, ids, NO_TARGET)).to(device)
        tokens = {**stream.tokens, "input_ids": torch.from_numpy(masked).to(device)}
        name = next(iter(micro.streams))
        return replace(micro, streams={name: replace(stream, tokens=tokens)}), labels
