"""The words of a text with their places, for tasks that read words: punctuation at the ends of a word is a word."""

from __future__ import annotations

import re
import unicodedata

CHUNK, SAME = re.compile(r"\S+"), re.compile(r"(.)\1*", re.DOTALL)


def word_places(text: str) -> list[tuple[int, int]]:
    """First character and end of each word: what stands between blanks, without the punctuation at its ends.

    Punctuation is a word for each run of one character, as in CoNLL files; `@name`, `#topic`, and signs that stand
    alone, such as `:-)`, stay as they are.
    """
    places: list[tuple[int, int]] = []
    for chunk in CHUNK.finditer(text):
        start, end = chunk.span()
        first, last = start, end
        while first < end and is_sign(text[first]) and not (text[first] in "@#" and first + 1 < end):
            first += 1
        if first == end:
            places.append((start, end))
            continue
        while last > first + 1 and is_sign(text[last - 1]):
            last -= 1
        places += signs(text, start, first)
        places.append((first, last))
        places += signs(text, last, end)
    return places


def words_of(text: str) -> list[str]:
    """The words of a text."""
    return [text[start:end] for start, end in word_places(text)]


def is_sign(character: str) -> bool:
    """Punctuation and symbols, but for what stands inside names and numbers."""
    return unicodedata.category(character)[0] in "PS" and character not in "_%°"


def signs(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """The runs of one character between two places."""
    return [(start + run.start(), start + run.end()) for run in SAME.finditer(text[start:end])]
