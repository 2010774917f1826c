"""Relations of raw documents by two finished runs: one finds the entities, the other the relations between them.

Scored end to end over triples (entity, relation, entity): the errors of both runs count.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from research.batching.plan import micro_batches
from research.common.errors import UserError
from research.data.entity_pairs import entities_of, relations_of
from research.inference.predict import predict
from research.inference.predictor import Predictor, trained_of
from research.metrics.base import precision_recall_f1
from research.metrics.examples import Floats
from research.tracking.run import Run

Entity = tuple[int, int, str]  # first character, end, type
Triple = tuple[Entity, str, Entity]


@dataclass(frozen=True)
class Document:
    id: str
    text: str
    entities: list[Entity]
    triples: list[Triple]


def read_documents(path: Path) -> tuple[list[Document], bool]:
    """JSON lines with `text`, and whether all of them have gold `entities` and `relations` too.

    Raises UserError, with the line, for one without a text, and for entities and relations that are none.
    """
    found, labelled = [], True
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where}: not JSON ({error}).") from None
        if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not row["text"].strip():
            raise UserError(f'{where}: a document needs its text, as in {{"text": "Anna lives in Oslo"}}.')
        labelled &= "entities" in row and "relations" in row
        entities = entities_of(row, where) if "entities" in row else []
        named = relations_of(row.get("relations"), entities, where)
        triples = [(entities[i], label, entities[j]) for (i, j), label in named.items()]
        found.append(Document(str(row.get("id", number)), row["text"], entities, triples))
    if not found:
        raise UserError(f"{path}: holds no documents.")
    return found, labelled


def joint_relations(ner: Run, relation: Run, documents: Sequence[Document]) -> list[Document]:
    """The documents with the entities and triples that the runs find in them."""
    entities = found_entities(Predictor(trained_of(ner)), [document.text for document in documents])
    rows = [{"id": str(i), "text": document.text, "entities": [list(each) for each in mine]}
            for i, (document, mine) in enumerate(zip(documents, entities, strict=True)) if len(mine) > 1]  # fmt: skip
    triples: list[list[Triple]] = [[] for _ in documents]
    for place, i, j, label in found_relations(relation, rows):
        triples[place].append((entities[place][i], label, entities[place][j]))
    found = zip(documents, entities, triples, strict=True)
    return [Document(document.id, document.text, mine, own) for document, mine, own in found]


def found_entities(predictor: Predictor, texts: Sequence[str]) -> list[list[Entity]]:
    """The entities of each text by a NER run. Raises UserError for a run of another task."""
    if "tokens" not in predictor.required:
        raise UserError(f"{predictor.config.model.name}: a run of task 'ner' finds entities, not one of another task.")
    questions = [predictor.question({"tokens": text}) for text in texts]
    found: list[list[Entity]] = [[] for _ in texts]
    tokens = np.array([question.tokens for question in questions])
    for part in micro_batches(np.arange(len(texts)), tokens, predictor.budget_tokens):
        for place, answer in zip(part, predictor.answer([questions[i] for i in part]), strict=True):
            found[place] = [(each["start"], each["end"], each["label"]) for each in answer["entities"]]
    return found


def found_relations(run: Run, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[int, int, int, str]]:
    """Document, its two entities and their relation, for each pair that a relation run finds one between."""
    other = getattr(run.config.task, "other", None)
    if other is None:
        raise UserError(f"{run.path}: a run of task 'relation' finds relations, not one of another task.")
    if not rows:
        return
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "documents.jsonl", Path(folder) / "pairs.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        predict(run, str(source), str(target))
        pairs = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    for pair in pairs:
        document, _, places = pair["id"].rpartition(":")
        i, j = map(int, places.split("-"))
        if pair["prediction"] != other:
            yield int(document), i, j, pair["prediction"]


def triple_scores(golds: Sequence[Document], predictions: Sequence[Document]) -> dict[str, dict[str, float]]:
    """Micro precision, recall and F1 over the triples of all documents, by two rules.

    `strict`: both entities have the right characters and the right types, and the relation is right; `boundaries`: as
    that, without the types (Bekoulis et al. 2018; Taillé et al. 2020).
    """
    sums = {rule: counts.sum(axis=0) for rule, counts in triple_counts(golds, predictions).items()}
    return {
        rule: dict(zip(("precision", "recall", "f1"), precision_recall_f1(counts).tolist(), strict=True))
        for rule, counts in sums.items()
    }


def triple_counts(golds: Sequence[Document], predictions: Sequence[Document]) -> dict[str, Floats]:
    """By rule, the right, the found and the gold triples of each document, (N, 3)."""
    found = {}
    for rule, view in (("strict", lambda triple: triple), ("boundaries", without_types)):
        rows = []
        for gold, prediction in zip(golds, predictions, strict=True):
            mine, theirs = {view(t) for t in prediction.triples}, {view(t) for t in gold.triples}
            rows.append([len(mine & theirs), len(mine), len(theirs)])
        found[rule] = np.array(rows, dtype=np.float64)
    return found


def without_types(triple: Triple) -> tuple[Any, ...]:
    first, label, second = triple
    return (first[:2], label, second[:2])


def as_lines(documents: Collection[Document]) -> str:
    """JSON lines of the form that a relation run reads: `text`, `entities`, `relations`."""
    lines = []
    for document in documents:
        place = {entity: i for i, entity in enumerate(document.entities)}
        relations = [{"head": place[a], "tail": place[b], "label": label} for a, label, b in document.triples]
        entities = [{"start": first, "end": end, "label": kind} for first, end, kind in document.entities]
        row = {"id": document.id, "text": document.text, "entities": entities, "relations": relations}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines)
