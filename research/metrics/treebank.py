"""English words as the Penn Treebank writes them: the word splitting behind the CMRC 2018 scorer.

The scorer calls `nltk.word_tokenize`, whose rules go back to R. MacIntyre's `tokenizer.sed`. The rules are
written here for one line of text, so that scoring needs neither nltk nor its downloaded sentence model. The
one difference: without that model a full stop inside the line stays with its word, as in "mr. smith".
"""

import re
from functools import lru_cache

# (pattern, replacement), applied in this order.
_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Opening quotes.
        (r"([\u00ab\u201c\u2018\u201e]|`+)", r" \1 "),
        (r'^"', "``"),
        (r"(``)", r" \1 "),
        (r"([ (\[{<])(?:\"|'')", r"\1 `` "),
        (r"(?i)(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", "' "),
        # The final full stop, commas and colons outside numbers, ellipses, symbols, dashes, brackets.
        (r"([^.])\.([\])}>\"'\u00bb\u201d\u2019 ]*+)\s*$", r"\1 . \2 "),
        (r"([:,])(\D|$)", r" \1 \2"),
        (r"(\.{2,}|[;@#$%&\u2012-\u2015?!])", r" \1 "),
        (r"([^'])' ", r"\1 ' "),
        (r"([*\[\](){}<>]|--)", r" \1 "),
        # Closing quotes and clitics, on a line that begins and ends with a space.
        (r"^|$", " "),
        (r"([\u00bb\u201d\u2019]|'')", r" \1 "),
        (r'"', " '' "),
        (r"\s+", " "),
        (r"([^' ])('[sSmMdD]|') ", r"\1 \2 "),
        (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 "),
        # Contractions written as one word.
        (r"(?i)\b(can)(not)\b", r" \1 \2 "),
        (r"(?i)\b(d)('ye)\b", r" \1 \2 "),
        (r"(?i)\b(gim|lem)(me)\b", r" \1 \2 "),
        (r"(?i)\b(gon|wan(?=na\s))(na)\b", r" \1 \2 "),
        (r"(?i)\b(got)(ta)\b", r" \1 \2 "),
        (r"(?i)\b(more)('n)\b", r" \1 \2 "),
        (r"(?i) ('t)(is)\b", r" \1 \2 "),
        (r"(?i) ('t)(was)\b", r" \1 \2 "),
    )
]


@lru_cache(maxsize=65536)
def treebank_words(line: str) -> tuple[str, ...]:
    """Split one line into words and punctuation marks."""
    if line.isdecimal():  # most runs inside Chinese text, and no rule touches them
        return (line,)
    for pattern, replacement in _RULES:
        line = pattern.sub(replacement, line)
    return tuple(line.split())
