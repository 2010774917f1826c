"""Random deletion: each word of a text is left out at a rate; one at least stays.

Wei and Zou 2019, EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification Tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from research.config.key import inside, key
from research.data.augment.hooks import Operation
from research.data.augment.words import Words, free


@dataclass
class Keys:
    rate: float = key(0.1, "share of a text's words", inside("[0, 1)"))
    share: float = key(0.5, "share of the texts of an epoch", inside("[0, 1]"))


class Augmentation(Operation):
    def __call__(self, words: Words, random: np.random.Generator) -> Words:
        places = free(words)
        lost = {
            place for place, drawn in zip(places, random.random(len(places)), strict=True) if drawn < self.keys.rate
        }
        if places and len(lost) == len(places):
            lost.remove(places[random.integers(len(places))])
        return [word for i, word in enumerate(words) if i not in lost]
