"""Baselines of extractive question answering: no answer at all, and the sentence most like the question.

The second is the simplest form of the lexical baselines of Richardson et al. (2013) and Rajpurkar et al. (2016): of the
sentences of the context the first that shares most words with the question.
"""

from __future__ import annotations

import re

_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？]?")
_WORD = re.compile(r"[぀-ヿ㐀-鿿]|[^\W぀-ヿ㐀-鿿]+")


def likest_sentence(question: str, context: str) -> str:
    """The first sentence of the context with the most words of the question; all of it where it has no sentences."""
    asked = set(_WORD.findall(question.casefold()))
    sentences = [sentence.strip() for sentence in _SENTENCE.findall(context) if sentence.strip()]
    shared = [len(asked & set(_WORD.findall(sentence.casefold()))) for sentence in sentences]
    return sentences[shared.index(max(shared))] if sentences else context
