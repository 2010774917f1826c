"""Entities marked in a text by their characters, as annotation tools write them, read as a tag per character."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from research.common import compat
from research.common.errors import UserError
from research.data.source import Split

Span = tuple[int, int, str]  # first character, end (exclusive), label
OUTSIDE = "O"
_NAMES = (("start_offset", "start", "begin"), ("end_offset", "end"), ("label", "type", "tag", "entity"))
_BATCH_ROWS = 1_000


def characters(row: Mapping[str, Any]) -> dict[str, Any]:
    """`text` and `entities` as a token and a tag (IOB2) per character; without `entities` there are no tags.

    Of entities that overlap, the one that begins first, then the longest, is kept. Raises UserError for offsets
    outside the text.
    """
    text, entities = row["text"], row.get("entities")
    if entities is None:
        return {"tokens": list(text)}
    tags = [OUTSIDE] * len(text)
    for first, end, label in sorted(spans(entities, text, row.get("id")), key=lambda span: (span[0], -span[1])):
        if not 0 <= first < end <= len(text):
            raise UserError(
                f"{row['id']}: the entity {first} to {end} does not lie in its {len(text)} characters; correct its "
                "[first character, end]."
            )
        if tags[first] == OUTSIDE:
            tags[first:end] = [f"B-{label}", *[f"I-{label}"] * (end - first - 1)]
    return {"tokens": list(text), "tags": tags}


def spans(entities: Any, text: str, row_id: Any = None) -> Iterator[Span]:
    """The entities of a row in any of the usual shapes; ends are exclusive but where a surface text says otherwise.

    A list of objects {"start_offset": 0, "end_offset": 4, "label": "LOC"} (or start, end, type, ...), a list of
    [0, 4, "LOC"] (doccano), or {"LOC": {"Oslo": [[0, 3]]}} with the last character (CLUENER 2020). Raises UserError
    for another.
    """
    if isinstance(entities, Mapping):
        for label, marked in entities.items():
            for surface, places in (marked or {}).items() if isinstance(marked, Mapping) else [(None, marked or [])]:
                for first, last in _pairs(places, row_id):
                    is_inclusive = surface is not None and text[first:last] != surface
                    yield first, last + is_inclusive, label
        return
    if not isinstance(entities, list):
        raise UserError(_another_shape(row_id, entities))
    for entity in entities:
        if isinstance(entity, Mapping):
            found = [next((entity[name] for name in names if name in entity), None) for names in _NAMES]
        else:
            found = list(entity) if isinstance(entity, list) else []
        match found:
            case [int(first), int(end), str(label)]:
                yield first, end, label
            case _:
                raise UserError(_another_shape(row_id, entity))


def _pairs(places: Any, row_id: Any) -> Iterator[tuple[int, int]]:
    for place in places:
        if not (isinstance(place, list) and len(place) == 2 and all(isinstance(end, int) for end in place)):
            raise UserError(_another_shape(row_id, place))
        yield place[0], place[1]


def _another_shape(row_id: Any, value: Any) -> str:
    return (
        f"{row_id}: an entity is {value!r:.60}; write "
        '{"start_offset": 0, "end_offset": 4, "label": "LOC"}, [0, 4, "LOC"] or {"LOC": {"Oslo": [[0, 3]]}}.'
    )


def with_characters(split: Split) -> Split:
    """The split with `tokens` and, where it has `entities`, `tags` beside its other columns.

    Raises UserError naming the file and the row's id.
    """
    names = [name for name in ("id", "text", "entities") if name in split.rows.column_names]
    tokens: list[pa.Array] = []
    tags: list[pa.Array] = []
    kind = pa.list_(pa.string())
    rows = split.rows.select_columns(names)
    try:
        for start in range(0, len(rows), _BATCH_ROWS):
            batch = [characters(row) for row in rows.select(range(start, min(start + _BATCH_ROWS, len(rows))))]
            tokens.append(pa.array([row["tokens"] for row in batch], kind))
            tags.append(pa.array([row.get("tags") for row in batch], kind))
    except UserError as error:
        raise UserError(f"{split.origin}, {error}") from None
    columns = {"tokens": tokens, "tags": tags} if "entities" in names else {"tokens": tokens}
    changed = split.rows
    for name, chunks in columns.items():
        fingerprint = hashlib.sha256(f"{compat.dataset_fingerprint(changed)} {name} of characters".encode()).hexdigest()
        changed = changed.add_column(name, pa.chunked_array(chunks), new_fingerprint=fingerprint)
    return dataclasses.replace(split, rows=changed)


def completed(tags: Sequence[str | None]) -> list[str]:
    """IOB2 tags in which a word without one (it left no token: a lone control character, say) follows its neighbours.

    Before a word inside an entity it is inside too, or begins it where no word before belongs to it; else it is
    outside.
    """
    found: list[str] = []
    following = OUTSIDE
    for tag in reversed(tags):
        following = tag or (following if following.startswith("I-") else OUTSIDE)
        found.append(following)
    found.reverse()
    for i, tag in enumerate(tags):
        kind = found[i][2:]
        if tag is None and found[i].startswith("I-") and (i == 0 or found[i - 1] not in (f"B-{kind}", f"I-{kind}")):
            found[i] = f"B-{kind}"
    return found
