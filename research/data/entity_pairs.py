"""Documents with several entities and relations between them, read as a row for each ordered pair of entities."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from research.common import compat
from research.common.errors import UserError
from research.data.entity_spans import Span, spans
from research.data.source import Split

ENDS = (("head", "e1", "from", "source"), ("tail", "e2", "to", "target"))
KINDS = ("label", "type", "relation")
Pair = tuple[int, int]  # numbers of two entities of a document, from 0


def with_pairs(split: Split, other: str, all_pairs: bool) -> Split:
    """Columns `e1`, `e2`, their types and `label` in place of `entities` and `relations`; ids are `<id>:<e1>-<e2>`.

    Pairs without a relation have the label `other`; where not `all_pairs`, only those with a relation are rows. Pairs
    of overlapping entities are left out, for they cannot be marked. New text has all its pairs and no labels. Raises
    UserError for an entity outside its text and for a relation that does not name a pair of them.
    """
    labelled = "relations" in split.rows.column_names
    if not labelled and split.name != "input":
        raise UserError(f"{split.origin}: rows with 'entities' need 'relations' too; write [] where there are none.")
    places: list[int] = []
    columns: dict[str, list[Any]] = {name: [] for name in ("id", "e1", "e2", "e1_type", "e2_type", "label")}
    for row, document in enumerate(split.rows):
        where = split.where(row)
        entities = entities_of(document, where)
        named = relations_of(document.get("relations"), entities, where) if labelled else {}
        pairs = [(i, j) for i in range(len(entities)) for j in range(len(entities)) if i != j]
        for i, j in pairs if all_pairs or not labelled else named:
            first, second = entities[i], entities[j]
            if max(first[0], second[0]) < min(first[1], second[1]):
                if (i, j) in named:
                    raise UserError(
                        f"{where}: the entities {list(first[:2])} and {list(second[:2])} of a relation overlap; "
                        "correct one of them, or take the relation out."
                    )
                continue
            places.append(row)
            columns["id"].append(f"{document['id']}:{i}-{j}")
            columns["e1"].append(list(first[:2]))
            columns["e2"].append(list(second[:2]))
            columns["e1_type"].append(first[2] or None)
            columns["e2_type"].append(second[2] or None)
            columns["label"].append(named.get((i, j), other))
    if not places:
        raise UserError(f"{split.origin}: no document has a pair of entities.")
    return replaced(split, places, columns, labelled)


def replaced(split: Split, places: list[int], columns: dict[str, list[Any]], labelled: bool) -> Split:
    """The rows at these places with other columns."""
    step = json.dumps([compat.dataset_fingerprint(split.rows), "pairs", len(places)])
    step = hashlib.sha256((step + json.dumps(columns)).encode()).hexdigest()
    gone = {"entities", "relations", *columns} & {*split.rows.column_names}
    rows = split.rows.select(places).remove_columns(sorted(gone))
    kinds = {"e1": pa.list_(pa.int64()), "e2": pa.list_(pa.int64())}
    for name, values in columns.items():
        if labelled or name != "label":
            array = pa.array(values, kinds.get(name, pa.string()))
            rows = rows.add_column(name, array, new_fingerprint=f"{step[:24]}{name}")
    return dataclasses.replace(split, rows=rows)


def entities_of(document: Mapping[str, Any], where: str) -> list[Span]:
    """The entities of a document in their order; the type "" of one that has none.

    Raises UserError for one outside the text.
    """
    given = document["entities"]
    if isinstance(given, list):
        given = [typed(entity) for entity in given]
    found = list(spans(given or [], document["text"], where))
    for first, end, _ in found:
        if not 0 <= first < end <= len(document["text"]):
            raise UserError(
                f"{where}: the entity {first} to {end} does not lie in its text of {len(document['text'])} characters; "
                "correct its [first character, end]."
            )
    return found


def typed(entity: Any) -> Any:
    """An entity of unknown type with the type ""."""
    if isinstance(entity, list) and len(entity) == 2:
        return [*entity, ""]
    if isinstance(entity, Mapping) and not any(entity.get(name) for name in (*KINDS[:2], "tag", "entity")):
        return {**entity, "label": ""}
    return entity


def relations_of(given: Any, entities: list[Span], where: str) -> dict[Pair, str]:
    """Pair -> label, from objects {"head": 0, "tail": 1, "label": "founded"} or lists [0, 1, "founded"].

    Raises UserError for a relation without its pair, and for a second one of the same pair.
    """
    found: dict[Pair, str] = {}
    for relation in given or []:
        if isinstance(relation, Mapping):
            parts = [
                next((relation[n] for n in names if relation.get(n) is not None), None) for names in (*ENDS, KINDS)
            ]
        else:
            parts = list(relation) if isinstance(relation, list) else []
        match parts:
            case [int(i), int(j), str(label)] if i != j and {i, j} <= set(range(len(entities))):
                if (i, j) in found:
                    raise UserError(f"{where}: the entities {i} and {j} have two relations; give the pair one.")
                found[i, j] = label
            case _:
                raise UserError(
                    f"{where}: the relation {relation!r:.80} is without its pair: write "
                    '{"head": 0, "tail": 1, "label": "founded"} with the numbers of two of the '
                    f"{len(entities)} entities, from 0."
                )
    return found
