"""Bad input of each kind of task at the level of the command: one line that says what, where and how to fix it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from research.cli import main
from tests.commands import Command
from tests.conftest import make_tiny_model
from tests.small_runs import SmallRuns
from tests.tasks.text_experiments import CHAT, gpt2

TEXT = "Anna lives in Oslo"
ENTITIES = [[0, 4, "PER"], [14, 18, "LOC"]]
CLASSES = [{"text": f"good film {i}", "label": "ab"[i % 2]} for i in range(8)]


def marked(**changed: Any) -> dict[str, Any]:
    return {"text": TEXT, "e1": [0, 4], "e2": [14, 18], "label": "In", **changed}


def document(relations: list[Any], entities: list[Any] | None = None) -> dict[str, Any]:
    return {"text": TEXT, "entities": entities or ENTITIES, "relations": relations}


@pytest.mark.in_check(4)
@pytest.mark.parametrize(
    ("task", "rows", "place", "fragment"),
    [
        ("relation", [marked(), marked(e2=[14, 99])], "line 2", "not [first character, end] of a part of the text, wh"),
        ("relation", [marked(), marked(e2=[2, 8])], "line 2", "share characters; mark two that are apart"),
        ("relation", [document([], [[0, 4, "PER"], [14, 40, "LOC"]])], "line 1", "14 to 40 does not lie in its text"),
        ("relation", [document([[0, 1, "In"]], [[0, 4, "A"], [2, 9, "B"]])], "line 1", "overlap; correct one of them"),
        ("relation", [document([{"head": 0, "label": "In"}])], "line 1", 'without its pair: write {"head": 0, "tail"'),
        ("relation", [document([[0, 5, "In"]])], "line 1", "with the numbers of two of the 2 entities, from 0"),
        ("rerank", [{"query": "a", "documents": ["b", "c"], "relevant": [0, 0]}], "line 1", "has no relevant document"),
        ("matching", [{"query": "a", "document": "b"}, {"query": "c", "document": ""}], "line 2", "give it one in"),
        ("matching", [{"query": "a", "document": "b"}, {"query": " ", "document": "b"}], "line 2", "query is empty; f"),
        ("multi_label", [{"text": "a", "label": "a"}, {"text": "b", "label": "{'b': 1}"}], "line 2", "is no list; w"),
        ("multi_label", [{"text": "a", "label": "a;b"}, {"text": "b", "label": "[a, b"}], "line 2", 'write ["a", "b"]'),
    ],
)  # fmt: skip
def test_a_faulty_row(command: Command, task: str, rows: list[dict[str, Any]], place: str, fragment: str) -> None:
    path = command.file("train.jsonl", rows)
    sentence = command.refused(task, path)
    assert (f"{path}, {place}" if place else str(path)) in sentence and fragment in sentence


@pytest.mark.in_check(2)
@pytest.mark.parametrize(
    ("task", "override", "fragment"),
    [
        ("prompt", "task.verbalizer={a: good film, b: bad}", "is not one token of the model but 2 (good, film); ch"),
        ("prompt", "task.verbalizer={a: good, b: good}", "is that of label 'a' too; each label needs a word of its"),
        ("classification", "data.shots=3", "the class 'a' has 4 examples in {}, which must have 3 to train on and 3"),
        ("classification", "data.labels=[a, c]", "{}, line 2: the label 'b' of 'label' is not declared"),
        ("multi_label", "data.shots=3", "task 'multi_label' has no class for each example to draw by; set data.max_tr"),
        ("classification", "adapter={name: lora, targets: []}", "the adapter changes no layer: name some"),
        ("classification", "methods={supcon: {}, simcse: {}}", "each compares the texts of a step; choose one"),
    ],
)  # fmt: skip
def test_a_setting_that_does_not_fit_the_data(command: Command, task: str, override: str, fragment: str) -> None:
    path = command.file("train.jsonl", CLASSES)
    assert fragment.format(path) in command.refused(task, path, override)


SHORT = ("task.max_new_tokens=8", "task.max_target_tokens=8")  # the small decoder has 128 positions
ASKED = [{"role": "user", "content": "where"}]
ANSWERED = [*ASKED, {"role": "assistant", "content": "Oslo"}]


@pytest.mark.in_check(2)
@pytest.mark.parametrize(
    ("task", "rows", "fragment"),
    [
        ("translation", [{"source": "a", "target": "b"}, {"source": "a", "target": " "}], "the target is empty; fill"),
        ("dialogue", [{"messages": ANSWERED}, {"messages": ASKED}], "the chat ends with the user; there is no answer"),
    ],
)  # fmt: skip
def test_a_faulty_row_of_text(command: Command, task: str, rows: list[dict[str, Any]], fragment: str) -> None:
    path = command.file("train.jsonl", rows)
    keys = ["task.chat_template=" + str(command.file("chat.jinja", CHAT))] if task == "dialogue" else []
    assert f"{path}, line 2: {fragment}" in command.refused(task, path, *SHORT, *keys, model=gpt2())


def test_parallel_files_of_different_length(command: Command) -> None:
    english, german = command.file("train.en", "a film\na book\n"), command.file("train.de", "ein Film\n")
    sentence = command.refused("translation", command.folder / "train.{en,de}", *SHORT, model=gpt2())
    assert f"{english} has 2 lines and {german} has 1 line: line 2 has no partner" in sentence


def test_a_decoder_for_a_task_of_encoders(command: Command) -> None:
    path = command.file("train.jsonl", [{"text": f"good film {i}"} for i in range(8)])
    sentence = command.refused("mlm", path, model=gpt2())
    assert "is a 'gpt2' model, a decoder; task 'mlm' fine-tunes encoders" in sentence and "It serves " in sentence


def test_tasks_whose_encoders_differ(command: Command, small_runs: SmallRuns) -> None:
    for name, model in (("a", command.model), ("b", make_tiny_model(command.folder / "other", hidden_size=16))):
        (_, path, *_), _ = small_runs.arguments("sentiment", (), {"model": {"name": str(model)}})
        (command.folder / f"{name}.yaml").write_text(Path(path).read_text())
    joint = command.file("joint.yaml", json.dumps({"tasks": ["a.yaml", "b.yaml"], "run_dir": str(command.run)}))
    assert main(["train", str(joint)]) == 2
    said = command.capsys.readouterr().err
    assert (
        f"tasks share one encoder, but a has {command.model}, b has {command.folder / 'other'}; name the same" in said
    )
    command.holds_nothing_half_written()
