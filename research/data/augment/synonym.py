"""Synonym replacement: some words give way to a synonym of the user's own table.

Wei and Zou 2019, EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification Tasks (there
from WordNet). Entries of several words, and Chinese ones, are found by the longest match.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from research.config.key import inside, key
from research.data.augment.hooks import Operation, Training
from research.data.augment.synonyms import Synonyms, like
from research.data.augment.words import Word, Words, count, free, words_of


@dataclass
class Keys:
    table: str | None = key(None, "file of lines: a word, a tab, its synonyms", path=True)
    rate: float = key(0.1, "share of a text's words", inside("[0, 1]"))
    share: float = key(0.5, "share of the texts of an epoch", inside("[0, 1]"))


class Augmentation(Operation):
    def learn(self, training: Training) -> None:
        self.synonyms = Synonyms(self.keys.table, "synonym")

    def __call__(self, words: Words, random: np.random.Generator) -> Words:
        found, out, done = list(self.synonyms.matches(words)), list[Word](), 0
        most = min(count(self.keys.rate, len(free(words))), len(found))
        for m in sorted(random.permutation(len(found))[:most].tolist()):
            first, end, several = found[m]
            chosen = like(several[random.integers(len(several))], words[first].text)
            new = words_of(chosen)
            new[-1] = replace(new[-1], after=words[end - 1].after)
            out += [*words[done:first], *new]
            done = end
        return [*out, *words[done:]]
