"""Random insertion: synonyms of a text's own words are put in at random places.

Wei and Zou 2019, EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification Tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from research.config.key import inside, key
from research.data.augment.hooks import Operation, Training
from research.data.augment.synonyms import Synonyms
from research.data.augment.words import Words, count, free, gaps, inserted


@dataclass
class Keys:
    table: str | None = key(None, "file of lines: a word, a tab, its synonyms", path=True)
    rate: float = key(0.1, "words that are put in, in those of the text", inside("[0, 1]"))
    share: float = key(0.5, "share of the texts of an epoch", inside("[0, 1]"))


class Augmentation(Operation):
    def learn(self, training: Training) -> None:
        self.synonyms = Synonyms(self.keys.table, "insert")

    def __call__(self, words: Words, random: np.random.Generator) -> Words:
        found = list(self.synonyms.matches(words))
        for _ in range(count(self.keys.rate, len(free(words))) if found else 0):
            several = found[random.integers(len(found))][2]
            places = gaps(words)
            words = inserted(words, places[random.integers(len(places))], several[random.integers(len(several))])
        return words
