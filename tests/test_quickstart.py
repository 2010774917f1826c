"""The shipped data: what its README counts, and nothing of the training data in the other splits."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from research.data.formats import format_of

FOLDER = Path(__file__).parent.parent / "research" / "quickstart"
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
