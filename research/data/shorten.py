"""Shorten a text by so many tokens, where it may lose them: at its end, its beginning or in its middle."""

from __future__ import annotations

from typing import Any

from research.data.long_texts import HEAD, HEAD_TAIL, TRUNCATE

TAIL = "tail"  # the end is kept


def shortened(tokenizer: Any, text: str, tokens: int, way: str) -> str:
    """The text without `tokens` of its tokens, or the empty text.

    `way`: truncate keeps the beginning, tail the end, head_tail the first quarter and the end.
    """
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    kept = len(offsets) - tokens
    if kept <= 0:
        return ""
    if way == TRUNCATE:
        return text[: offsets[kept - 1][1]]
    if way == TAIL:
        return text[offsets[-kept][0] :]
    assert way == HEAD_TAIL
    head = kept // HEAD
    first = text[: offsets[head - 1][1]] if head else ""
    return f"{first} {text[offsets[-(kept - head)][0] :]}"
