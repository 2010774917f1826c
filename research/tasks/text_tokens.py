"""Tokens of sources and targets as columns of the store: one stream for a decoder, two for an encoder-decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from research.batching.store import NO_TARGET
from research.common.errors import UserError
from research.data.chat_template import Segments
from research.training.datamodule import Columns


def target_ids(
    tokenizer: Any, golds: Sequence[Sequence[str]], end: int, start: int | None, is_decoder: bool
) -> list[list[int]]:
    """The first gold text of each example as tokens with the end token; none where it has no gold text.

    Where the decoder starts with a token that its tokenizer writes before the text (as in BERT) or behind it (the
    language, in mBART), that is left out here.
    """
    plain = {"add_special_tokens": False} if is_decoder else {}
    known = [texts[0] for texts in golds if texts]
    rows = iter(tokenizer(text_target=known, verbose=False, **plain)["input_ids"] if known else [])
    found = []
    for texts in golds:
        row = next(rows) if texts else []
        if row and row[0] == start != end:
            row = row[1:]
        if row and row[-1] == start != end:
            row = row[:-1]
        found.append([*row, end] if texts and row[-1:] != [end] else row)
    return found


def joined(sources: Sequence[list[int]], targets: Sequence[list[int]], end: int) -> list[Segments]:
    """Each source without the end token that some tokenizers close every text with, and the target behind it."""
    found: list[Segments] = []
    for source, target in zip(sources, targets, strict=True):
        prompt = source[:-1] if source[-1:] == [end] and len(source) > 1 else source
        found.append([(prompt, False), *([(target, True)] if target else [])])
    return found


def limited(segments: Segments, limit: int) -> Segments:
    """With targets of at most `limit` tokens; one that is cut lacks its end: its text did not end there."""
    return [(ids[:limit] if is_target else ids, is_target) for ids, is_target in segments]


def two_streams(sources: list[list[int]], targets: list[list[int]], start: int) -> Columns:
    """The decoder reads the target one token behind what it predicts."""
    inputs = [[start, *target[:-1]] for target in targets]
    return {
        "source.input_ids": sources,
        "source.windows": [[len(row)] for row in sources],
        "target.input_ids": inputs,
        "target.label": [target or [NO_TARGET] for target in targets],
        "target.windows": [[len(row)] for row in inputs],
        "targets": [float(len(target)) for target in targets],
    }


def one_stream(examples: Sequence[Segments]) -> Columns:
    """Source and targets in one row; its last token, where it is a target, predicts nothing and is left out."""
    columns: Columns = {"input_ids": [], "label": [], "windows": [], "targets": []}
    for segments in examples:
        ids = [token for part, _ in segments for token in part]
        wanted = [token if is_target else NO_TARGET for part, is_target in segments for token in part]
        kept = len(ids) - segments[-1][1]
        columns["input_ids"].append(ids[:kept])
        columns["label"].append([*wanted[1:], NO_TARGET][:kept])
        columns["windows"].append([kept])
        columns["targets"].append(float(sum(token != NO_TARGET for token in wanted[1:])))
    return columns


def end_token(tokenizer: Any, name: str) -> int:
    """The token that ends a target. Raises UserError where the tokenizer has none."""
    for end in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        if end is not None:
            return int(end)
    raise UserError(f"The tokenizer of {name} has neither an eos nor a sep token to end a text with; add one to it.")
