"""What every task keeps: it trains, evaluates, predicts without gold, and its exported model gives its predictions."""

from __future__ import annotations

import ast
import json
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from research.cli import main
from research.config import component
from research.config.load import load_config
from research.tracking.run import Run
from research.training.build import build as build_module
from tests.conftest import make_tiny_model, write_jsonl

WORDS = ["Anna", "Oslo", "river", "good", "bad", "film"]


def review(i: int) -> dict[str, Any]:
    return {"text": f"{WORDS[i % 6]} film {i}", "label": "ab"[i % 2]}


def sentence(i: int) -> dict[str, Any]:
    return {"tokens": ["Anna", "in", WORDS[i % 6], str(i)], "tags": ["B-PER", "O", "B-LOC" if i % 2 else "O", "O"]}


def question(i: int) -> dict[str, Any]:
    return {
        "question": f"where {i}",
        "context": f"Anna in Oslo {i}",
        "answers": {"text": ["Oslo"], "answer_start": [8]},
    }


def choice(i: int) -> dict[str, Any]:
    return {"text": f"where {i}", "choices": ["a city", "bad", "good"][: 2 + i % 2], "label": i % 2}


def related(i: int) -> dict[str, Any]:
    return {"text": f"<e1>Anna</e1> in <e2>{WORDS[i % 6]}</e2> {i}", "label": "Other" if i % 2 else "In(e1,e2)"}


def tagged(i: int) -> dict[str, Any]:
    return {"text": f"{WORDS[i % 6]} film {i}", "label": [["a"], ["a", "b"], []][i % 3]}


def rated(i: int) -> dict[str, Any]:
    return {"text": f"{WORDS[i % 6]} film {i}", "score": i / 4}


def matched(i: int) -> dict[str, Any]:
    return {"id": str(i), "query": f"{WORDS[i % 6]} film {i}", "document": f"good {WORDS[(i + 1) % 6]} {i}"}


def pair(i: int) -> dict[str, Any]:
    return {"source": f"{WORDS[i % 6]} film {i}", "target": f"good {WORDS[(i + 1) % 6]}"}


def completed(i: int) -> dict[str, Any]:
    return {"prompt": f"{WORDS[i % 6]} film {i}", "completion": f"good {WORDS[(i + 1) % 6]}"}


def asked(i: int) -> dict[str, Any]:
    return {"question": f"where {i}", "context": f"Anna in Oslo {i}", "answers": ["Oslo", "in Oslo"]}


def chat(i: int) -> dict[str, Any]:
    turns = [("human", f"where {i}"), ("gpt", "Oslo"), ("human", f"what film {i}"), ("gpt", f"a good {WORDS[i % 6]}")]
    return {"conversations": [{"from": role, "value": text} for role, text in turns]}


def unanswered(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "conversations": row["conversations"][:-1]}


# task -> a row by its number, and the columns that unlabelled rows lack
TASKS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "classification": (review, ("label",)), "sentiment": (review, ("label",)),
    "ner": (sentence, ("tags",)), "extractive_qa": (question, ("answers",)), "qa": (question, ("answers",)),
    "multiple_choice": (choice, ("label",)), "choice": (choice, ("label",)), "relation": (related, ("label",)),
    "multi_label": (tagged, ("label",)), "regression": (rated, ("score",)),
    "matching": (matched, ()),
    "translation": (pair, ("target",)), "summarization": (pair, ("target",)),
    "generation": (completed, ("completion",)), "generative_qa": (asked, ("answers",)), "dialogue": (chat, ()),
}  # fmt: skip
TEXT = ("translation", "summarization", "generation", "generative_qa", "dialogue")
ALIASES = {"sentiment", "qa", "choice"}
ONES = [name for name in component.names("task") if name not in ALIASES]


def test_every_task_is_held_to_this() -> None:
    assert sorted(TASKS) == component.names("task")


@cache
def run_of(task: str, folder: Path) -> tuple[Run, Path]:
    """A run of two steps on rows of the task, and its experiment."""
    row = TASKS[task][0]
    if task in TEXT:
        from tests.tasks.test_translation import make_model

        model = make_model(folder / "model", "t5")
    else:
        model = make_tiny_model(folder / "model")
    files = {name: str(write_jsonl(folder / f"{name}.jsonl", [row(i + 100 * k) for i in range(8)]))
             for k, name in enumerate(("train", "validation", "test"))}  # fmt: skip
    content = {
        "task": task,
        "model": {"name": str(model)},
        "data": {**files, "max_length": 32, "max_overlap": 1.0},
        "optim": {"max_steps": 2, "batch_size": 4},
        "trainer": {"precision": "fp32", "devices": 1},
        "wandb": {"mode": "disabled"},
        "run_dir": str(folder / "run"),
    }
    path = folder / "e.yaml"
    path.write_text(json.dumps(content))
    assert main(["train", str(path)]) == 0
    return Run.read(folder / "run"), path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {task: tmp_path_factory.mktemp(task) for task in ONES}


@pytest.mark.slow
@pytest.mark.parametrize("task", ONES)
def test_train_evaluate_predict(task: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """The scores are evaluated again to the bit, and the test file without gold gets the predictions of the test."""
    run, _ = run_of(task, folders[task])
    result = run.result
    assert result is not None and result["metrics"]["test"]
    assert main(["evaluate", str(run.path), "--split", "test"]) == 0
    (again,) = map(json.loads, (run.path / "evaluations.jsonl").read_text().splitlines())
    assert again["scores"] == result["metrics"]["test"]
    row, gold = TASKS[task]
    bare = [{key: value for key, value in row(i + 200).items() if key not in gold} for i in range(8)]
    bare = [unanswered(each) for each in bare] if task == "dialogue" else bare
    source, target = write_jsonl(tmp_path / "in.jsonl", bare), tmp_path / "out.jsonl"
    assert main(["predict", str(run.path), "--input", str(source), "--output", str(target)]) == 0
    written = [json.loads(line) for line in target.read_text().splitlines()]
    tested = pq.read_table(run.predictions / "test.parquet").to_pylist()
    assert [each["prediction"] for each in written] == [each["prediction"] for each in tested]
    assert all(each.get("gold") is None for each in written)
    assert all(each["gold"] is not None for each in tested)


@pytest.mark.slow
@pytest.mark.parametrize("task", ONES)
def test_options_act_or_are_refused(task: str, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Label smoothing, balanced classes, declared labels: another loss or weight, or one sentence with the key."""
    _, path = run_of(task, folders[task])
    plain = build_module(load_config(path))
    for key in ("optim.balance_classes=true", "data.labels=[a, b]", "optim.class_weights={a: 2.0}"):
        code = main(["show", str(path), key, "data.validation=null", "data.test=null"])
        said = capsys.readouterr().err
        if code == 0:
            acted = build_module(load_config(path, [key])).data
            assert acted.class_weights is not None or acted.labels != plain.data.labels or key.startswith("data.labels")
        else:
            lines = [line for line in said.splitlines() if line.startswith("research: ")]
            assert code == 2 and len(lines) == 1, said


@pytest.mark.parametrize("task", component.names("task"))
def test_a_task_file_keeps_the_house_rules(task: str) -> None:
    """Own keys are documented, and neither metrics nor the report know the task."""
    path = component.find("task", task)
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
