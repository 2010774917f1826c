"""What an operation of augmentation may do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from research.data.augment.words import Words


@dataclass(frozen=True)
class Training:
    """What an operation may learn of the training data."""

    texts: Sequence[Words]
    tagged: bool  # do the words have tags?
    unknown: str | None  # the tokenizer's token for an unknown word


class Operation:
    """Changes the words of a text. Strength 0 of any kind is off."""

    of_whole_texts = False  # it reads texts as they are in the file, so it is applied before the others

    def __init__(self, keys: Any) -> None:
        """`keys` are the operation's section of the config."""
        self.keys = keys

    @property
    def is_off(self) -> bool:
        """At strength 0: the training data are to the bit those without the operation."""
        return bool(self.keys.share == 0 or getattr(self.keys, "rate", 1) == 0)

    def learn(self, training: Training) -> None:
        """Once, before training: read files, look at the training data. Raises UserError where the operation has
        nothing to act on."""

    def __call__(self, words: Words, random: np.random.Generator) -> Words:
        """Other words in the place of these; an entity's words and tags stay together."""
        raise NotImplementedError
