"""A sequence of three small tasks by every strategy: the scores of each cell, and what a second call does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from research.cli import main
from research.continual.learn import learn
from research.continual.sequence import read_sequence
from research.methods.ewc import FILE
from research.tracking.run import Run
from tests.conftest import write_jsonl

LEARNED = {
    "a": ["good", "bad", "film", "book"], "b": ["Anna", "Oslo", "river", "city"], "c": ["film", "book", "Oslo", "Anna"],
}  # fmt: skip


def write_tasks(folder: Path, model: Path, names: str = "ab") -> list[str]:
    """Tasks: which of two words occurs in a text."""
    paths = []
    for name, words in ((name, LEARNED[name]) for name in names):
        data: dict[str, Any] = {"max_length": 16, "max_overlap": 1.0}
        for split, count in (("train", 24), ("validation", 8), ("test", 8)):
            rows = [{"text": f"{words[i % 2]} the {words[2 + i % 2]} {i}", "label": f"{name}{i % 2}"}
                    for i in range(count)]  # fmt: skip
            data[split] = str(write_jsonl(folder / f"{name}-{split}.jsonl", rows))
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(json.dumps({"task": "sentiment", "model": {"name": str(model)}, "data": data}))
    return list(map(str, paths))


@pytest.mark.slow
def test_every_strategy_on_two_tasks(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {
        "tasks": write_tasks(tmp_path, tiny_model),
        "strategies": ["naive", "replay", {"online_ewc": {"strength": 50}}, "lwf", "joint", "adapter"],
        "output": str(tmp_path / "out"),
        "fisher_examples": 4,
        "experiment": {"optim": {"max_steps": 4, "batch_size": 8, "lr": 3e-3}, "wandb": {"mode": "disabled"},
                       "trainer": {"precision": "fp32", "devices": 1, "progress": False}},
    }  # fmt: skip
    path = tmp_path / "s.yaml"
    path.write_text(json.dumps(content))
    assert main(["continual", str(path)]) == 0
    said = capsys.readouterr().out
    assert "| naive | 1 |" in said and "| strategy | runs | ACC | BWT | FWT | forgetting |" in said
    out = tmp_path / "out"
    assert (out / "continual.png").is_file() and "| after b |" in (out / "continual.md").read_text()
    found = {each["strategy"]: each for each in json.loads((out / "continual.json").read_text())}
    naive = Run.read(out / "naive" / "order0" / "1-b" / "seed0")
    assert naive.config.model.name == str(out / "first" / "order0" / "0-a" / "seed0" / "model")
    assert naive.result is not None
    tested = naive.result["metrics"]["test"]
    assert found["naive"]["R"][1] == [tested["a.accuracy"], tested["b.accuracy"]]
    first, second = (load_file(run / "model" / "model.safetensors") for run in map(Path, found["naive"]["runs"]))
    assert torch.equal(first["classifier.weight"][:2], second["classifier.weight"][:2])  # the head of a
    assert not torch.equal(first["classifier.weight"][2:], second["classifier.weight"][2:])
    held = Run.read(out / "online_ewc-strength_50" / "order0" / "1-b" / "seed0").config.methods["ewc"]
    assert len(held.sha256[0]) == 64 and (Path(held.runs[0]) / FILE).is_file()
    followed = load_file(found["lwf"]["runs"][1] + "/model/model.safetensors")
    assert not torch.equal(followed["classifier.weight"][:2], first["classifier.weight"][:2])  # a's head follows
    assert not list(out.rglob("tasks"))  # no run of each task beside every cell
    R, b = np.array(found["adapter"]["R"]), found["adapter"]["b"]
    assert R[1, 0] == R[0, 0] and R[0, 1] == b[1] and found["adapter"]["BWT"] == 0.0
    times = {run: (Path(run) / "result.json").stat().st_mtime_ns for each in found.values() for run in each["runs"]}
    again = learn(read_sequence(path))  # all is there
    assert [each.R.tolist() for each in again] == [each["R"] for each in found.values()]
    assert times == {run: (Path(run) / "result.json").stat().st_mtime_ns for run in times}
    path.write_text(json.dumps({**content, "fisher_examples": 5}))
    assert main(["continual", str(path)]) == 2
    assert "fisher.safetensors was made with fisher_examples: 4, not 5; give another output." in capsys.readouterr().err


@pytest.mark.slow
def test_orders_and_seeds_of_three_tasks(tmp_path: Path, tiny_model: Path) -> None:
    """The rows of each matrix are the scores of its own runs, in the order's own places."""
    content = {
        "tasks": write_tasks(tmp_path, tiny_model, "abc"),
        "strategies": [{"ewc": {"strength": 50}}],
        "orders": [["a", "b", "c"], ["c", "a", "b"]],
        "seeds": [0, 1],
        "output": str(tmp_path / "out"),
        "fisher_examples": 4,
        "experiment": {"optim": {"max_steps": 12, "batch_size": 8, "lr": 1e-2}, "wandb": {"mode": "disabled"},
                       "trainer": {"precision": "fp32", "devices": 1, "progress": False}},
    }  # fmt: skip
    (tmp_path / "s.yaml").write_text(json.dumps(content))
    assert main(["continual", str(tmp_path / "s.yaml")]) == 0
    found = json.loads((tmp_path / "out" / "continual.json").read_text())
    assert [("".join(each["order"]), each["seed"]) for each in found] == [
        ("abc", 0), ("cab", 0), ("abc", 1), ("cab", 1)
    ]  # fmt: skip
    for each in found:
        runs = [Run.read(Path(run)) for run in each["runs"]]
        assert [run.config.task.train for run in runs] == [[name] for name in each["order"]]
        assert {run.config.seed for run in runs} == {each["seed"]}
        tested = [(run.result or {})["metrics"]["test"] for run in runs]
        R = np.array(each["R"])
        assert R.shape == (3, 3) and R.tolist() == [[x[f"{n}.accuracy"] for n in each["order"]] for x in tested]
        assert each["ACC"] == pytest.approx(R[2].mean(), abs=1e-12)
        untrained = Run.read(tmp_path / "out" / "start" / f"seed{each['seed']}").result or {}
        assert each["b"] == [untrained["metrics"]["test"][f"{name}.accuracy"] for name in each["order"]]
        assert runs[2].config.methods["ewc"].runs == each["runs"][:2]
    assert len({str(each["R"]) for each in found}) > 1 and len({run for each in found for run in each["runs"]}) == 12
