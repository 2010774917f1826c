"""Texts as words that can be moved, and back.

A word is a run of letters and digits, a Chinese, Japanese kana or Korean character, or a mark of punctuation; what
is between two words stays with the first. Tagged words have IOB2 tags; an entity is never taken apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

OUTSIDE = "O"
CHARACTER = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"  # of scripts written without spaces between words
WORD = re.compile(rf"([{CHARACTER}]|(?:(?![{CHARACTER}])\w)+(?:['’](?:(?![{CHARACTER}])\w)+)*|[^\w\s])(\s*)")


@dataclass(frozen=True)
class Word:
    text: str
    after: str = " "  # what precedes the next word
    tag: str = OUTSIDE

    @property
    def is_free(self) -> bool:
        """May it be changed? Neither an entity's word nor punctuation may."""
        return self.tag == OUTSIDE and any(c.isalnum() for c in self.text)

    @property
    def is_character(self) -> bool:
        return re.fullmatch(rf"[{CHARACTER}]+", self.text) is not None


Words = Sequence[Word]


def words_of(text: str) -> list[Word]:
    """The words of a text; what precedes the first is dropped."""
    return [Word(found[1], found[2]) for found in WORD.finditer(text)]


def text_of(words: Words) -> str:
    return "".join(word.text + word.after for word in words).rstrip()


def free(words: Words) -> list[int]:
    """Which words may be changed."""
    return [i for i, word in enumerate(words) if word.is_free]


def gaps(words: Words) -> list[int]:
    """The places where a word may be inserted: before word i, or at the end; not inside an entity."""
    return [i for i in range(len(words) + 1) if i == len(words) or not words[i].tag.startswith("I-")]


def inserted(words: Words, place: int, text: str) -> list[Word]:
    """With another word before word `place`, set apart from its neighbours as their script is."""
    new = Word(text)
    before, rest = list(words[:place]), list(words[place:])
    if not before:
        return [replace(new, after="" if new.is_character else " "), *rest]
    last = before[-1]
    between = last.after if last.after or (last.is_character and new.is_character) else " "
    return [*before[:-1], replace(last, after=between), replace(new, after=last.after), *rest]


def count(rate: float, words: int) -> int:
    """How many of so many words are changed: at least one, as in EDA."""
    return max(1, round(rate * words))
