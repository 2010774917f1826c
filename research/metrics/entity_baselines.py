"""Baselines of entities: no entity at all, and those of the training data found again.

The second is that of the CoNLL shared tasks (Tjong Kim Sang & De Meulder 2003): every phrase that is an entity of one
type alone in the training data is one, the longest first from left to right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from research.metrics.tags import lenient_entities

Phrases = Mapping[tuple[str, ...], str]  # words -> the only type they had


def known_phrases(train: pa.Table) -> dict[tuple[str, ...], str]:
    """The phrases of the training data (columns tokens, gold) that are entities of one type alone."""
    types: dict[tuple[str, ...], set[str]] = {}
    for words, tags in zip(train.column("tokens").to_pylist(), train.column("gold").to_pylist(), strict=True):
        for kind, start, end in lenient_entities(tags):
            types.setdefault(tuple(words[start:end]), set()).add(kind)
    return {phrase: next(iter(kinds)) for phrase, kinds in types.items() if len(kinds) == 1}


def tagged_again(sentences: Iterable[Sequence[str]], phrases: Phrases) -> list[list[str]]:
    """IOB2 tags of sentences in which the phrases are entities."""
    longest = max(map(len, phrases), default=0)
    return [_tagged(words, phrases, longest) for words in sentences]


def _tagged(words: Sequence[str], phrases: Phrases, longest: int) -> list[str]:
    tags, place = ["O"] * len(words), 0
    while place < len(words):
        lengths = range(min(longest, len(words) - place), 0, -1)
        length = next((n for n in lengths if tuple(words[place : place + n]) in phrases), 0)
        if length:
            kind = phrases[tuple(words[place : place + length])]
            tags[place : place + length] = [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
        place += max(length, 1)
    return tags
