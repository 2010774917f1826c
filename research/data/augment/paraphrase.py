"""Paraphrases of whole texts, from a file made once: back-translation by two translation runs, or the user's own.

Sennrich, Haddow and Birch 2016, Improving Neural Machine Translation Models with Monolingual Data; Xie et al. 2020,
Unsupervised Data Augmentation. `research paraphrase FORWARD BACKWARD --input train.jsonl --output back.jsonl` writes
the file: JSON lines of a `text` and its `paraphrase`, one line for each paraphrase.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from research.common.errors import UserError
from research.config.key import inside, key
from research.data.augment.hooks import Operation, Training
from research.data.augment.words import Words, text_of, words_of


@dataclass
class Keys:
    file: str | None = key(None, "JSON lines of `text` and `paraphrase`, as research paraphrase writes them", path=True)
    share: float = key(0.5, "share of the texts of an epoch", inside("[0, 1]"))


class Augmentation(Operation):
    of_whole_texts = True

    def learn(self, training: Training) -> None:
        if training.tagged:
            raise UserError("augment.paraphrase does not keep the tags of words; use entity, synonym, swap or delete.")
        if self.keys.file is None:
            raise UserError(
                "augment.paraphrase needs a file: write it by `research paraphrase FORWARD BACKWARD --input FILE "
                "--output FILE`, and set augment.paraphrase.file."
            )
        self.paraphrases = read_paraphrases(Path(self.keys.file))
        if not any(text_of(words) in self.paraphrases for words in training.texts):
            raise UserError(f"{self.keys.file}: has a paraphrase of none of the {len(training.texts)} training texts.")

    def __call__(self, words: Words, random: np.random.Generator) -> Words:
        found = self.paraphrases.get(text_of(words), [])
        return words_of(found[random.integers(len(found))]) if found else words


def read_paraphrases(path: Path) -> dict[str, list[str]]:
    """By text, as its words make it. Raises UserError, with the line, for what is no pair of texts."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"augment.paraphrase.file={path} cannot be read ({error}).") from None
    found: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            text, other = row["text"], row["paraphrase"]
        except (ValueError, TypeError, KeyError):
            text = other = None
        if not isinstance(text, str) or not isinstance(other, str):
            raise UserError(f'{path}, line {number}: write {{"text": "...", "paraphrase": "..."}}.')
        if words_of(other) and other != text:
            found.setdefault(text_of(words_of(text)), []).append(other)
    return found
