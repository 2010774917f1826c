"""What every task keeps: it trains, evaluates, predicts without gold, and its exported model gives its predictions."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoConfig

from research.batching.plan import Layout
from research.cli import main
from research.common.errors import UserError
from research.config import component
from research.config.key import broken_rules
from research.config.load import load_config
from research.models.load import family_of
from research.tracking.predictions import make_table, score
from research.tracking.run import Run
from research.training.build import build as build_module
from research.training.module import TaskModule
from tests.conftest import make_tiny_model, write_experiment, write_jsonl

WORDS = ["Anna", "Oslo", "river", "good", "bad", "film"]


def review(i: int) -> dict[str, Any]:
    return {"text": f"{WORDS[i % 6]} film {i}", "label": "ab"[i % 2]}


def sentence(i: int) -> dict[str, Any]:
    tokens, tags = ["Anna", "in", WORDS[i % 6], str(i)], ["B-PER", "O", "B-LOC" if i % 2 else "O", "O"]
    return {"tokens": 3 * tokens, "tags": 3 * tags}


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


def utterance(i: int) -> dict[str, Any]:
    return {**sentence(i), "label": "ab"[i % 2]}


def matched(i: int) -> dict[str, Any]:
    return {"id": str(i), "query": f"{WORDS[i % 6]} film {i}", "document": f"good {WORDS[(i + 1) % 6]} {i}"}


def watched(i: int) -> dict[str, Any]:
    return {"history": [f"{WORDS[(i + k) % 6]} film" for k in range(1 + i % 4)], "item": f"{WORDS[(i + 5) % 6]} film"}


def graded(i: int) -> dict[str, Any]:
    return {"text": f"{WORDS[i % 6]} film {i}", "label": 1 + i % 3}


def listed(i: int) -> dict[str, Any]:
    documents = [f"good {WORDS[(i + 1) % 6]} {i}", "a bad film", f"river {i}"]
    return {
        "query": f"{WORDS[i % 6]} film {i}",
        "documents": documents,
        "relevant": [int(k == i % 3) for k in range(3)],
    }


def document(i: int) -> dict[str, Any]:
    return {"text": f"{WORDS[i % 6]} film {i} in {WORDS[(i + 1) % 6]}, " * (1 + i % 4)}


def pair(i: int) -> dict[str, Any]:
    return {"source": f"{WORDS[i % 6]} film {i}", "target": f"good {WORDS[(i + 1) % 6]}"}


def completed(i: int) -> dict[str, Any]:
    return {"prompt": f"{WORDS[i % 6]} film {i}", "completion": f"good {WORDS[(i + 1) % 6]}"}


def asked(i: int) -> dict[str, Any]:
    return {"question": f"where {i}", "context": f"Anna in Oslo {i}", "answers": ["in Oslo", "Oslo"]}


def chat(i: int) -> dict[str, Any]:
    turns = [("human", f"where {i}"), ("gpt", "Oslo"), ("human", f"what film {i}"), ("gpt", f"a good {WORDS[i % 6]}")]
    return {"conversations": [{"from": role, "value": text} for role, text in turns]}


def unanswered(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "conversations": row["conversations"][:-1]}


# task -> a row by its number, and the columns that unlabelled rows lack
SCRATCH = {"family": "t5", "layers": 1, "width": 32, "vocabulary": 512}
TASKS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "classification": (review, ("label",)), "sentiment": (review, ("label",)),
    "ner": (sentence, ("tags",)), "extractive_qa": (question, ("answers",)), "qa": (question, ("answers",)),
    "multiple_choice": (choice, ("label",)), "choice": (choice, ("label",)), "relation": (related, ("label",)),
    "multi_label": (tagged, ("label",)), "regression": (rated, ("score",)),
    "matching": (matched, ()),
    "recommendation": (watched, ("item",)), "ordinal": (graded, ("label",)), "rerank": (listed, ("relevant",)),
    "intent_slots": (utterance, ("label", "tags")),
    "translation": (pair, ("target",)), "summarization": (pair, ("target",)),
    "generation": (completed, ("completion",)), "generative_qa": (asked, ("answers",)), "dialogue": (chat, ()),
    "prompt": (review, ("label",)), "nli_zero_shot": (review, ("label",)), "in_context": (review, ("label",)),
    "setfit": (review, ("label",)), "hierarchical": (review, ("label",)),
    "lm": (document, ()), "clm": (document, ()), "mlm": (document, ()),
    "span_corruption": (document, ()), "nsp": (document, ()),
}  # fmt: skip
# task -> architecture, where it is not an encoder
KINDS = dict.fromkeys(("translation", "summarization", "generation", "generative_qa", "dialogue"), "t5") | {
    "lm": "gpt2",
    "in_context": "gpt2",
}
INFERENCE: dict[str, Any] = {
    "id2label": {0: "contradiction", 1: "entailment"},
    "label2id": {"contradiction": 0, "entailment": 1},
}
MODELS: dict[str, dict[str, Any]] = {"nli_zero_shot": INFERENCE}  # task -> settings of its encoder
UNTRAINED = ("in_context",)
ONES = [name for name in TASKS if component.canonical("task", name) == name]

# What an option needs beside it to act on these rows, and values of options whose kind alone does not say one.
CONTEXT = {
    "stride": ["data.max_length=8"], "top_p": ["task.temperature=1.0"], "top_k": ["task.temperature=1.0"],
    "num_return_sequences": ["task.num_beams=3"], "separator": ["task.demonstrations=2"],
    "normalize": ["task.verbalizer={a: good film, b: bad}"],
}  # fmt: skip
VALUES = {
    "template": ["'{source} and {source}'"], "references": ["[target]"], "metrics": ["[bleu]", "[chrf]"],
    "stop": ['["#", ";", "?", a, e, i, o, n, t, r, s]'], "dimensions": ["[8]"], "other": ["In(e1,e2)"],
    "prompt.template": ["'{text} {mask}'"], "in_context.template": ["'{text} is'"], "verbalizer": ["{a: good}"],
    "hierarchy": [str(Path(__file__).parent / "hierarchy.yaml")],
    "hypothesis": ["'a {label}'"], "descriptions": ["{a: good}"], "separator": ["' '"],
}  # fmt: skip


def own_keys() -> list[tuple[str, str]]:
    """Each own key of a task with one task that has it: several inherit theirs from one class."""
    found: dict[int, tuple[str, str]] = {}
    for task in sorted(ONES, key="dialogue".__eq__):  # which refuses some keys of the others
        for f in fields(component.keys("task", task)):
            if f.name != "name":
                found.setdefault(id(f), (task, f.name))
    return [*found.values(), ("dialogue", "chat"), ("dialogue", "references")]


def test_every_task_is_held_to_this() -> None:
    """But several at once, which is made of others: tests/tasks/test_multi.py."""
    assert sorted([*TASKS, "multi"]) == component.names("task")


@cache
def run_of(task: str, folder: Path) -> tuple[Run, Path]:
    """A run of two steps on rows of the task, and its experiment."""
    path = experiment_of(task, folder)
    assert main(["train", str(path)]) == 0
    return Run.read(folder / "run"), path


def experiment_of(task: str, folder: Path) -> Path:
    """An experiment of two steps on rows of the task."""
    row, model = TASKS[task][0], dict[str, Any]()
    if task in KINDS:
        from tests.tasks.test_translation import make_model

        model = {"name": str(make_model(folder / "model", KINDS[task]))}
    elif task == "span_corruption":  # needs sentinels
        model = {"name": "scratch", "scratch": SCRATCH}
    else:
        model = {"name": str(make_tiny_model(folder / "model", **MODELS.get(task, {})))}
    files = {name: str(write_jsonl(folder / f"{name}.jsonl", [row(i + 100 * k) for i in range(8)]))
             for k, name in enumerate(("train", "validation", "test"))}  # fmt: skip
    return write_experiment(
        folder / "e.yaml",
        {"name": task, **({"max_new_tokens": 8} if KINDS.get(task) == "t5" else {})},
        model,
        {**files, "max_length": 32, "max_overlap": 1.0},
        optim={"max_steps": 0 if task in UNTRAINED else 2, "batch_size": 4},
    )


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
def test_a_sample_of_validation_is_evaluated_in_training(task: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """With the same weights in the end, all of validation gets the scores that it has without a sample."""
    plain, path = run_of(task, folders[task])
    assert main(["train", str(path), "trainer.evaluate_examples=5", f"run_dir={tmp_path / 'run'}"]) == 0
    run = Run.read(tmp_path / "run")
    assert run.result is not None and plain.result is not None
    assert run.result["sample"]["examples"] == 5 and set(run.result["sample"]["metrics"]) >= {"loss"}
    assert [row["step"] for row in run.metrics() if "sample/loss" in row] == [run.result["steps"]]
    assert run.result["metrics"] == plain.result["metrics"]


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


def candidates(task: str, name: str) -> Iterator[str]:
    """Values of a key other than its default that its rules allow, as they are written in an override."""
    schema = component.keys("task", task)
    f = next(f for f in fields(schema) if f.name == name)
    default, kind = getattr(schema(), name), get_type_hints(schema)[name]
    if values := VALUES.get(f"{task}.{name}", VALUES.get(name)):
        yield from values
    elif kind is bool:
        yield str(not default).lower()
    elif get_origin(kind) is Literal:
        yield from (choice for choice in get_args(kind) if choice != default)
    else:
        kinds = {kind, *get_args(kind)}
        numbers: list[Any] = [2, 1, 3, 0] if int in kinds else [0.5, 0.9, 2.0, 0.1] if float in kinds else ["x"]
        yield from (str(each) for each in numbers if each != default and not broken_rules(f, each))


def training_losses(module: TaskModule, split: str) -> list[float]:
    """Of the micro-batches of a split, or of those of training together where the loss needs the whole step."""
    if not module.needs_whole_step:
        return [float(module.loss(micro)[0]) for micro in module.data.evaluation_batches(split)]
    parts = [module.embed(micro) for micro in module.data.evaluation_batches("train")]
    examples = {kind: np.concatenate([part[kind][1] for part in parts]) for kind in parts[0]}
    order = {kind: np.argsort(rows, kind="stable") for kind, rows in examples.items()}
    vectors = {kind: torch.cat([part[kind][0] for part in parts])[order[kind]] for kind in parts[0]}
    return [float(module.step_loss(vectors, {kind: rows[order[kind]] for kind, rows in examples.items()}))]


def evaluated(path: Path, overrides: Sequence[str], split: str = "validation", learned: Any = None) -> dict[str, Any]:
    """All that a key could change without training: encoded rows, the loss, predictions, scores, and how they score."""
    module = build_module(load_config(path, overrides))
    data = module.data
    data.layout = lambda: Layout(0, 1, 4096, module.backbone.packed)
    if learned is not None:
        data.use_validation_scores(learned)
    torch.manual_seed(0)
    predictions: dict[int, dict[str, Any]] = {}
    with torch.no_grad():
        losses = training_losses(module.train(), split)
        module.eval()
        with module.evaluating():
            for micro in data.evaluation_batches(split):
                predictions.update(module.decode(micro, module.loss(micro)[1]))
    rows = data.splits[split]
    table = make_table(rows, data.table(rows, predictions), data.metric_name, data.score_settings())
    return {
        "encoded": {name: store.digest for name, store in data.stores.items()},
        "loss": losses,
        "table": table.to_pylist(),
        "settings": data.score_settings(),
        "trained": [name for name, p in module.named_parameters() if p.requires_grad],
        "scores": score(table, own_files=True),
    }


@pytest.mark.slow
@pytest.mark.parametrize(("task", "name"), own_keys())
def test_each_own_key_acts_or_is_refused(task: str, name: str, folders: dict[str, Path]) -> None:
    _, path = run_of(task, folders[task])
    context = ["data.test=null", *CONTEXT.get(name, [])]
    plain = evaluated(path, context)
    tried = []
    for value in candidates(task, name):
        try:
            acted = evaluated(path, [*context, f"task.{name}={value}"])
        except UserError as error:
            assert name in str(error) or value.strip("[]'") in str(error), error
            return
        tried.append(value)
        if repr(acted) != repr(plain):
            return
    raise AssertionError(f"task.{name} of {task} does nothing with {tried}")


@pytest.mark.slow
@pytest.mark.parametrize("task", ONES)
def test_the_export_gives_the_scored_predictions(task: str, folders: dict[str, Path]) -> None:
    """Loaded by transformers: no weight is missing or left over, and the predictions of the test split are equal."""
    run, path = run_of(task, folders[task])
    assert run.result is not None
    heads = component.load("task", task).Module.heads()
    [auto] = [head for family, head in heads.items() if family == family_of(AutoConfig.from_pretrained(run.model))]
    _, info = auto.from_pretrained(run.model, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    of_weights = [f"model.name={run.model}", *(f"model.scratch.{key}=null" for key in SCRATCH)]
    found = evaluated(path, of_weights, "test", run.result["metrics"]["validation"])
    tested = pq.read_table(run.predictions / "test.parquet").to_pylist()
    assert [row["prediction"] for row in found["table"]] == [row["prediction"] for row in tested]
    scores = {name: value for name, value in run.result["metrics"]["test"].items() if name != "loss"}
    assert found["scores"] == pytest.approx(scores, abs=1e-6, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("task", ONES)
def test_its_run_is_reported(task: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """Tables, figures, error analysis, checklist and page of its run; the main score is that of the run."""
    run, _ = run_of(task, folders[task])
    assert run.result is not None
    assert main(["report", str(run.path), "--output", str(tmp_path)]) == 0
    assert main(["report", "--check", str(tmp_path)]) == 0
    numbers = json.loads((tmp_path / "manifest.json").read_text())["numbers"]
    score = run.result["metrics"]["test"][run.result["monitor"]]
    assert any(each["value"] == pytest.approx(score, abs=1e-9) for each in numbers), numbers[:5]
    assert task in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize("task", component.names("task"))
def test_a_task_file_keeps_the_house_rules(task: str) -> None:
    """Own keys are documented, and neither metrics nor the report know the task."""
    path = component.find("task", task)
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
