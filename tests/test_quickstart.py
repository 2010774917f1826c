"""The shipped data: what its README counts, and nothing of the training data in the other splits."""

from __future__ import annotations

import re
import runpy
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from research.data.formats import format_of
from tests.report.synthetic import write_run

FOLDER = Path(__file__).parent.parent / "research" / "quickstart"
TABLES = Path(__file__).parent.parent / "scripts" / "quickstart_table.py"
TASKS = ("sentiment", "ner", "qa", "dialogue")
SPLITS = ("train", "validation", "test")


def rows(task: str, split: str) -> list[dict[str, Any]]:
    (path,) = (FOLDER / task).glob(f"{split}.*")
    return [row for _, row in format_of(str(path)).read(str(path))]


def five_words(row: dict[str, Any]) -> set[tuple[str, ...]]:
    """Every run of five words in the text of an example."""
    text = row.get("text") or row.get("context") or row.get("dialogue") or " ".join(row["tokens"])
    words = re.findall(r"\w+", text.lower())
    return set(zip(*(words[i:] for i in range(5)), strict=False))


@pytest.mark.parametrize("task", TASKS)
def test_counts_are_those_of_the_readme(task: str) -> None:
    counts = " | ".join(str(len(rows(task, split))) for split in SPLITS)
    (line,) = (x for x in (FOLDER / "README.md").read_text().splitlines() if x.startswith(f"| `{task}` "))
    assert f" | {counts} | " in line


@pytest.mark.parametrize("task", TASKS)
def test_no_five_words_of_another_split_stand_in_train(task: str) -> None:
    seen = set().union(*map(five_words, rows(task, "train")))
    assert len(seen) > 1000
    assert not [row for split in ("validation", "test") for row in rows(task, split) if five_words(row) & seen]


def test_reviews_are_half_negative_and_have_ids_and_texts_of_their_own() -> None:
    reviews = [(split, row) for split in SPLITS for row in rows("sentiment", split)]
    for column in ("id", "text"):
        assert len({row[column] for _, row in reviews}) == len(reviews)
    labels = Counter((split, row["label"]) for split, row in reviews)
    assert all(labels[split, "negative"] == labels[split, "positive"] for split in SPLITS)


def test_dialogues_have_summaries_shorter_than_they_are() -> None:
    dialogues = [row for split in SPLITS for row in rows("dialogue", split)]
    assert len(dialogues) == len({row["dialogue"] for row in dialogues}) == len({row["summary"] for row in dialogues})
    lengths = [(len(row["dialogue"].split()), len(row["summary"].split())) for row in dialogues]
    assert len(dialogues) == 204 and all("\n" in row["dialogue"] for row in dialogues)
    assert sum(summary for _, summary in lengths) < 0.7 * sum(dialogue for dialogue, _ in lengths)


def test_summaries_stand_side_by_side_before_and_after_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the first three dialogues, with the first of a person's summaries; the scores of all runs above."""
    write_run(tmp_path / "sentiment" / "seed0")
    for run, said in (("untrained/dialogue", "noise"), ("dialogue/seed0", "summary")):
        columns = {
            "source": [f"dialogue {i}" for i in range(4)],
            "gold": [[f"person {i}", "other"] for i in range(4)],
            "prediction": [f"{said} {i}" for i in range(4)],
        }
        (tmp_path / run / "predictions").mkdir(parents=True)
        pq.write_table(pa.table(columns), tmp_path / run / "predictions" / "test.parquet")
    monkeypatch.setattr(sys, "argv", [str(TABLES), str(tmp_path)])
    runpy.run_path(str(TABLES))
    lines = [re.split(r"\s*[│┃]\s*", line)[1:-1] for line in capsys.readouterr().out.splitlines() if line[:1] in "│┃"]
    assert lines[1][:2] == ["sentiment", "accuracy"] and lines[1][4] == "600"
    assert lines[2:] == [
        ["dialogue", "before", "after", "by a person"],
        *([f"dialogue {i}", f"noise {i}", f"summary {i}", f"person {i}"] for i in range(3)),
    ]
