"""What becomes of a text longer than `data.max_length`: it is cut at its end or in its middle, or read in windows.

- `truncate`: the first tokens are kept. Of a pair the longer text is cut first.
- `head_tail`: the first quarter of the tokens and the last three quarters are kept (Sun et al. 2019, How to Fine-Tune
  BERT for Text Classification: 128 and 382 of 510).
- `window`: the text is read in as few windows as cover it, spread evenly, so that they overlap by what is left over.
  Of a pair the longer text is read so; the other stands in each window, cut to half of it where it is longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from research.data.cutting import beginning, end

TRUNCATE, HEAD_TAIL, WINDOW = "truncate", "head_tail", "window"
HEAD = 4  # one token in so many is of the head

Places = NDArray[np.int64]  # of tokens in the encoding of a whole text or pair


def encoded_texts(
    tokenizer: Any, texts: Sequence[str], pairs: Sequence[str | None], limit: int, long: str
) -> dict[str, list[Any]]:
    """Texts, or pairs of them, as windows of at most `limit` tokens.

    Columns: what the tokenizer says of each token, the windows of an example end to end; `windows`: their lengths;
    `cut`: did the example lose text? `several`: is it read in several windows?
    """
    short = _shortened(tokenizer, limit, long)
    shortened = [(short(text), short(pair)) if pair else short(text) for text, pair in zip(texts, pairs, strict=True)]
    settings = {"truncation": True, "max_length": limit} if long == TRUNCATE else {"verbose": False}
    tokens = tokenizer(shortened, return_attention_mask=False, **settings)
    columns: dict[str, list[Any]] = {name: list(tokens[name]) for name in tokens}
    if long == TRUNCATE:
        columns["windows"] = [[len(row)] for row in tokens["input_ids"]]
        columns["cut"] = [bool(encoding.overflowing) for encoding in tokens.encodings]
        columns["several"] = [False] * len(shortened)
        return columns
    columns |= {"windows": [], "cut": [], "several": []}
    for i, encoding in enumerate(tokens.encodings):
        windows = windows_of(encoding.sequence_ids, limit, long)
        read = np.concatenate(windows)
        for name in tokens:
            columns[name][i] = np.asarray(tokens[name][i], np.int64)[read].tolist()
        columns["windows"].append([len(window) for window in windows])
        columns["cut"].append(len(np.unique(read)) < len(encoding.ids))
        columns["several"].append(len(windows) > 1)
    return columns


def windows_of(sequence_ids: Sequence[int | None], limit: int, long: str) -> list[Places]:
    """The tokens of each window, from which of a pair's texts each is (None: a special token), in their order."""
    count = len(sequence_ids)
    if count <= limit:
        return [np.arange(count)]
    parts = [np.flatnonzero([s == part for s in sequence_ids]) for part in (0, 1)]
    special = np.flatnonzero([s is None for s in sequence_ids])
    lengths = shares([len(part) for part in parts], limit - len(special))
    if long == HEAD_TAIL:
        return [np.sort(np.concatenate([special, *map(head_and_tail, parts, lengths)]))]
    slides = int(len(parts[1]) > len(parts[0]))
    beside = parts[1 - slides][: lengths[1 - slides]]
    room = limit - len(special) - len(beside)
    return [np.sort(np.concatenate([special, beside, part])) for part in spread(parts[slides], room)]


def shares(lengths: Sequence[int], room: int) -> list[int]:
    """How many tokens of each of two texts have room: all of the shorter one, up to half."""
    first, second = lengths
    if first + second <= room:
        return [first, second]
    shorter = min(first, second, room // 2)
    return [room - shorter, shorter] if first >= second else [shorter, room - shorter]


def head_and_tail(places: Places, length: int) -> Places:
    """The first and the last of these tokens, together `length`."""
    if len(places) <= length:
        return places
    head = (length + HEAD // 2) // HEAD
    return np.concatenate([places[:head], places[len(places) - (length - head) :]])


def spread(places: Places, length: int) -> list[Places]:
    """As few stretches of `length` tokens as cover all, spread evenly."""
    count = -(-len(places) // length)
    starts = np.linspace(0, len(places) - length, count).round().astype(int)
    return [places[start : start + length] for start in starts]


def _shortened(tokenizer: Any, limit: int, long: str) -> Callable[[str], str]:
    """A text without characters that no window reads: a tokenizer spends much memory on them."""
    if long == TRUNCATE:
        return partial(beginning, tokenizer, tokens=limit)
    if long == WINDOW:
        return str

    def both_ends(text: str) -> str:
        first, last = beginning(tokenizer, text, limit), end(tokenizer, text, limit)
        return text if len(first) + len(last) >= len(text) else f"{first} {last}"

    return both_ends
