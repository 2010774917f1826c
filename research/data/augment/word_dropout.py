"""Word dropout: each word of a text is hidden at a rate, behind the tokenizer's token for unknown words.

Iyyer et al. 2015, Deep Unordered Composition Rivals Syntactic Methods for Text Classification (which leaves the words
out, as `delete` does); Bowman et al. 2016, Generating Sentences from a Continuous Space (with the unknown word).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from research.common.errors import UserError
from research.config.key import inside, key
from research.data.augment.hooks import Operation, Training
from research.data.augment.words import Words, free


@dataclass
class Keys:
    rate: float = key(0.1, "share of a text's words", inside("[0, 1)"))
    share: float = key(0.5, "share of the texts of an epoch", inside("[0, 1]"))


class Augmentation(Operation):
    def learn(self, training: Training) -> None:
        if training.unknown is None:
            raise UserError("augment.word_dropout: the model's tokenizer has no token for unknown words; use delete.")
        self.unknown = training.unknown

    def __call__(self, words: Words, random: np.random.Generator) -> Words:
        places, out = free(words), list(words)
        for place, drawn in zip(places, random.random(len(places)), strict=True):
            if drawn < self.keys.rate:
                out[place] = replace(out[place], text=self.unknown)
        return out
