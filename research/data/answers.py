"""What a question's row says of its answers, which extractive question answering trains on and scores by.

A question is in one of three states: answered, without an answer, or unlabelled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from typing import Any

import pyarrow as pa

from research.common import compat
from research.common.errors import UserError
from research.data.source import Split

log = logging.getLogger(__name__)

Answers = dict[str, list[Any]]
NOWHERE = -1  # the answer_start of an answer that its context does not hold
_TYPE = pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))])
_BATCH_ROWS = 5_000


def read_answers(split: Split, needed: bool) -> Split:
    """The split with `answers` {"text": [...], "answer_start": [...]}: empty lists for no answer, null for unlabelled.

    An `answer_start` (in characters) that points at another text is moved to the nearest occurrence of the answer.
    An answer that does not occur in its context keeps its text for scoring and gets the start -1. How many of each
    is logged. Raises UserError for answers of another shape and, where they are `needed`, for an unlabelled question
    and one none of whose answers occurs there.
    """
    if "answers" not in split.rows.column_names:
        return split
    _check_type(split)
    names = [name for name in ("context", "answers", "is_impossible") if name in split.rows.column_names]
    read: list[Answers | None] = []
    moved = nowhere = changed = 0
    for batch in split.rows.select_columns(names).with_format("arrow").iter(_BATCH_ROWS):
        for row in batch.to_pylist():
            answers = stated(row["answers"], row.get("is_impossible"))
            if answers is None and needed:
                raise UserError(_unlabelled(split, len(read), row.get("is_impossible")))
            if answers is not None:
                answers, moves, losses = _located(answers, row["context"], split, len(read), needed)
                moved, nowhere = moved + moves, nowhere + losses
            changed += answers != row["answers"]
            read.append(answers)
    if moved:
        log.warning("%s: moved %d answer_start to the nearest occurrence of the answer's text", split.origin, moved)
    if nowhere:
        log.warning("%s: %d answers do not occur in their context; they count in scoring alone", split.origin, nowhere)
    return _with_answers(split, read) if changed else split


def stated(answers: Answers | None, is_impossible: bool | None) -> Answers | None:
    """The answers with a text, empty lists where the row says that there is none, None where it says nothing.

    `is_impossible` decides where it is true; its answers are then merely plausible. Without it, an empty list or an
    empty text says that there is no answer.
    """
    if is_impossible:
        return {"text": [], "answer_start": []}
    if answers is None or answers["text"] is None:
        return None
    texts, starts = answers["text"], answers["answer_start"] or []
    if not texts and is_impossible is False:
        return None
    if not any(text and text.strip() for text in texts):
        return {"text": [], "answer_start": []}
    if len(texts) != len(starts):
        return answers
    kept = [(text, start) for text, start in zip(texts, starts, strict=True) if text and text.strip()]
    return {"text": [text for text, _ in kept], "answer_start": [start for _, start in kept]}


def nearest_start(context: str, text: str, start: int) -> int:
    """`start` if `text` is there, else its nearest occurrence (the earlier of two), NOWHERE if there is none."""
    if start >= 0 and context.startswith(text, start):
        return start
    before, after = context.rfind(text, 0, max(start, 0) + len(text)), context.find(text, max(start, 0))
    found = [place for place in (before, after) if place >= 0]
    return min(found, key=lambda place: abs(place - start), default=NOWHERE)


def _located(answers: Answers, context: str, split: Split, row: int, needed: bool) -> tuple[Answers, int, int]:
    """The answers with their places, how many were moved and how many do not occur."""
    texts, given = answers["text"], answers["answer_start"] or []
    if len(texts) != len(given):
        raise UserError(f"{split.where(row)}: {len(texts)} answers but {len(given)} answer_start; give each one")
    before = [NOWHERE if start is None else start for start in given]
    starts = [nearest_start(context, text, start) for text, start in zip(texts, before, strict=True)]
    if texts and max(starts) == NOWHERE and needed:
        there = context[max(before[0], 0) : max(before[0], 0) + len(texts[0])]
        raise UserError(
            f"{split.where(row)}: the answer '{texts[0]:.60}' is not at answer_start {before[0]} "
            f"(the context has '{there:.60}') nor elsewhere in the context; correct the answer or its context"
        )
    moved = sum(new not in (old, NOWHERE) for old, new in zip(before, starts, strict=True))
    return {"text": texts, "answer_start": starts}, moved, starts.count(NOWHERE)


def _check_type(split: Split) -> None:
    kind = split.column("answers").type
    if pa.types.is_string(kind) and split.column("answers").null_count == len(split.rows):
        return  # a column of nulls alone
    if not pa.types.is_struct(kind) or {"text", "answer_start"} - {field.name for field in kind}:
        raise UserError(
            f"{split.origin}: 'answers' holds {kind}; "
            'write {"text": ["Oslo"], "answer_start": [17]}, with empty lists where there is no answer.'
        )


def _unlabelled(split: Split, row: int, is_impossible: bool | None) -> str:
    what = "'is_impossible' is false but no answer is given" if is_impossible is False else "'answers' is null"
    return f"{split.where(row)}: {what}; give its answers, empty lists where it has none, or take the question out"


def _with_answers(split: Split, read: list[Answers | None]) -> Split:
    names = split.rows.column_names
    fingerprint = hashlib.sha256(f"{compat.dataset_fingerprint(split.rows)} answers".encode()).hexdigest()
    column = pa.chunked_array([pa.array(read, _TYPE)])
    rows = split.rows.remove_columns("answers").add_column("answers", column, new_fingerprint=fingerprint)
    return dataclasses.replace(split, rows=rows.select_columns(names))
