"""Entities by one run and relations by another: scores by hand, and the chain beside its two halves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from research.cli import main
from research.common.errors import UserError
from research.inference.joint_relations import Document, as_lines, read_documents, triple_scores
from tests.conftest import copied, write_jsonl
from tests.small_runs import SmallRuns

ANNA, OSLO, ACME = (0, 4, "PER"), (14, 18, "LOC"), (22, 26, "ORG")
TEXT = "Anna lives in Oslo, a Acme city"


def test_scores_by_hand() -> None:
    gold = Document("1", TEXT, [ANNA, OSLO, ACME], [(ANNA, "in", OSLO), (ANNA, "at", ACME)])
    wrong_type = (14, 18, "ORG")
    found = Document("1", TEXT, [ANNA, wrong_type], [(ANNA, "in", wrong_type), (wrong_type, "in", ANNA)])
    scores = triple_scores([gold, gold], [found, gold])
    # strict: 2 of 4 predicted and of 4 gold are right; without types (Anna, in, Oslo) of the first document too
    assert scores["strict"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5}
    assert scores["boundaries"] == {"precision": 0.75, "recall": 0.75, "f1": 0.75}
    assert triple_scores([gold], [Document("1", TEXT, [], [])])["strict"]["f1"] == 0.0


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"entities": []}, "line 1: a document needs its text"),
        ({"text": "Anna", "entities": [[0, 9, "PER"]], "relations": []}, "does not lie in its text of 4 characters"),
        ({"text": "Anna", "entities": [[0, 4, "PER"]], "relations": [[0, 1, "in"]]}, "is without its pair"),
    ],
)
def test_documents_that_are_none(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        read_documents(write_jsonl(tmp_path / "bad.jsonl", [row]))


def test_documents_written_are_read_again(tmp_path: Path) -> None:
    document = Document("a", TEXT, [ANNA, OSLO], [(OSLO, "of", ANNA)])
    (tmp_path / "d.jsonl").write_text(as_lines([document]))
    assert read_documents(tmp_path / "d.jsonl") == ([document], True)


@pytest.mark.slow
def test_the_chain_is_its_two_halves(small_runs: SmallRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each word is an entity, and no pair is without a relation, so that there is something to find."""
    sentences = [{"tokens": ["Anna", "Oslo", "film"][: 1 + i % 3], "tags": ["B-PER", "B-LOC", "B-ORG"][: 1 + i % 3]}
                 for i in range(24)]  # fmt: skip
    pairs = [{"text": "Anna Oslo", "entities": [[0, 4, "PER"], [5, 9, "LOC"]],
              "relations": [[0, 1, "in"], [1, 0, "of"]]} for _ in range(12)]  # fmt: skip
    runs = []
    for task, rows, keys in (("ner", sentences, ()), ("relation", pairs, ("task.typed=true", "task.other=none"))):
        file = str(write_jsonl(tmp_path / f"{task}.jsonl", rows))
        data = {"train": file, "validation": copied(file), "max_length": 32, "max_overlap": 1.0}
        runs.append(small_runs.train(task, *keys, data=data))
    gold = {"text": "Anna Oslo", "entities": [[0, 4, "PER"], [5, 9, "LOC"]], "relations": [[0, 1, "in"], [1, 0, "of"]]}
    source = write_jsonl(tmp_path / "documents.jsonl", [{**gold, "id": "x"}, {**gold, "text": "film, Oslo"}])
    output = tmp_path / "found.jsonl"
    capsys.readouterr()
    paths, files = [str(run.path) for run in runs], ["--input", str(source), "--output", str(output)]
    assert main(["relations", *paths, *files]) == 0
    said = capsys.readouterr().out
    found, complete = read_documents(output)
    golds, _ = read_documents(source)
    assert complete and [document.id for document in found] == ["x", "2"]
    scores = triple_scores(golds, found)
    for rule in ("strict", "boundaries"):
        assert f"| {rule} | " + " | ".join(f"{value:.4f}" for value in scores[rule].values()) + " |" in said
    written = json.loads((tmp_path / "found.scores.json").read_text())
    assert written["documents"] == 2 and written["ner"] == paths[0]
    for rule, own in scores.items():
        assert {name: written["triples"][rule][name] for name in own} == own
        assert written["triples"][rule]["f1_low"] <= own["f1"] <= written["triples"][rule]["f1_high"]
    by_hand = [{"id": document.id, "text": document.text, "entities": [list(each) for each in document.entities]}
               for document in found]  # fmt: skip
    assert all(len(document.entities) > 1 for document in found)
    write_jsonl(tmp_path / "halves.jsonl", by_hand)
    arguments = ["predict", str(runs[1].path), "--input", str(tmp_path / "halves.jsonl"), "--output"]
    assert main([*arguments, str(tmp_path / "pairs.jsonl")]) == 0
    halves = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert sum(len(document.triples) for document in found) == sum(row["prediction"] != "none" for row in halves) > 0
    assert main(["relations", *paths[::-1], *files]) == 2
    assert "a run of task 'ner' finds entities" in capsys.readouterr().err
