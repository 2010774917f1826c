"""Entity replacement: an entity is replaced by another of its kind in the training data, with its own tags.

Dai and Adel 2020, An Analysis of Simple Data Augmentation for Named Entity Recognition (mention replacement).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from research.common.errors import UserError
from research.config.key import inside, key
from research.data.augment.hooks import Operation, Training
from research.data.augment.words import OUTSIDE, Word, Words


@dataclass
class Keys:
    rate: float = key(0.3, "share of a text's entities", inside("[0, 1]"))
    share: float = key(0.5, "share of the texts of an epoch", inside("[0, 1]"))


class Augmentation(Operation):
    def learn(self, training: Training) -> None:
        if not training.tagged:
            raise UserError("augment.entity replaces tagged entities, and the task's words have no tags.")
        found: dict[str, dict[tuple[str, ...], None]] = {}
        for words in training.texts:
            for first, end in entities(words):
                mentions = found.setdefault(words[first].tag[2:], {})
                mentions[tuple(word.text for word in words[first:end])] = None
        self.mentions = {kind: list(mentions) for kind, mentions in found.items()}

    def __call__(self, words: Words, random: np.random.Generator) -> Words:
        out, done = list[Word](), 0
        for first, end in entities(words):
            if random.random() >= self.keys.rate:
                continue
            kind = words[first].tag[2:]
            others = self.mentions[kind]
            chosen = others[random.integers(len(others))]
            tags = [f"B-{kind}", *[f"I-{kind}"] * (len(chosen) - 1)]
            out += [*words[done:first], *(Word(text, tag=tag) for text, tag in zip(chosen, tags, strict=True))]
            done = end
        return [*out, *words[done:]]


def entities(words: Words) -> Iterator[tuple[int, int]]:
    """First word and end of each entity."""
    first = None
    for i, word in enumerate([*words, Word("")]):
        if first is not None and not word.tag.startswith("I-"):
            yield first, i
            first = None
        if word.tag != OUTSIDE and first is None:
            first = i
