"""Cut a text before it is tokenised: a tokenizer spends 150 bytes on each character of it, and most are thrown away."""

from __future__ import annotations

import re
from typing import Any

BETWEEN_WORDS = re.compile(r"[\W\u3040-\u9fff]")  # tokens before it do not depend on what follows
CHARACTERS_PER_TOKEN = 40  # of the first try, several times what any tokenizer needs on ordinary text


def beginning(tokenizer: Any, text: str, tokens: int) -> str:
    """The beginning of `text`, or all of it, whose first `tokens` tokens are those of the full text.

    The tokens must end in the first half of what is kept and a word after them, so that they do not depend on the cut.
    """
    characters = CHARACTERS_PER_TOKEN * tokens
    while characters < len(text):
        kept = text[:characters]
        offsets = tokenizer(kept, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        if len(offsets) > tokens:
            last = offsets[tokens - 1][1]
            if last <= characters // 2 and BETWEEN_WORDS.search(kept, last):
                return kept
        characters *= 2
    return text


def end(tokenizer: Any, text: str, tokens: int) -> str:
    """The end of `text`, or all of it, whose last `tokens` tokens are those of the full text."""
    characters = CHARACTERS_PER_TOKEN * tokens
    while characters < len(text):
        kept = text[-characters:]
        offsets = tokenizer(kept, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        if len(offsets) > tokens:
            first = offsets[-tokens][0]
            if first >= characters // 2 and BETWEEN_WORDS.search(kept, 0, first):
                return kept
        characters *= 2
    return text
