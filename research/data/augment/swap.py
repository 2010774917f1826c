"""Random swap: two words of a text change places, some times.

Wei and Zou 2019, EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification Tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from research.config.key import inside, key
from research.data.augment.hooks import Operation
from research.data.augment.words import Words, count, free


@dataclass
class Keys:
    rate: float = key(0.1, "swaps, in the words of the text", inside("[0, 1]"))
    share: float = key(0.5, "share of the texts of an epoch", inside("[0, 1]"))


class Augmentation(Operation):
    def __call__(self, words: Words, random: np.random.Generator) -> Words:
        places, out = free(words), list(words)
        for _ in range(count(self.keys.rate, len(places)) if len(places) > 1 else 0):
            i, j = (places[k] for k in random.permutation(len(places))[:2])
            out[i], out[j] = replace(out[i], text=out[j].text), replace(out[j], text=out[i].text)
        return out
