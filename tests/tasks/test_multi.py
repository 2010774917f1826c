"""Several tasks at once: the loss of each over its own targets, mixed rows, scores, layouts and resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

import research
from research.batching.pack import pack
from research.cli import main
from research.common.errors import UserError
from research.config.load import load_config
from research.deploy.exported import load_exported
from research.deploy.served_runs import names_of
from research.metrics.multi import MEAN, normalised
from research.tasks.multi_data import remembered
from research.tracking.own_code import users_files
from research.tracking.predictions import metric, settings
from research.tracking.run import Run
from research.training.build import build
from tests.small_runs import SmallRuns, assert_same_bits, assert_same_up_to_rounding, weights

Files = Callable[..., list[str]]


@pytest.fixture
def files(tmp_path: Path, tiny_model: Path, task_data: dict[str, dict[str, str]]) -> Files:
    """The experiments of tasks, each in its file: `files("sentiment", "ner")`."""

    def made(*tasks: str, model: Path = tiny_model, **sections: Any) -> list[str]:
        paths = []
        for task in tasks:
            data = {**task_data.get(task, task_data["sentiment"]), "max_length": 48}
            content = {"task": task, "model": {"name": str(model)}, "data": data, **sections}
            paths.append(tmp_path / f"{task}.yaml")
            paths[-1].write_text(json.dumps(content))
        return list(map(str, paths))

    return made


def joint(folder: Path, tasks: list[str], **sections: Any) -> Path:
    content = {
        "tasks": tasks,
        "trainer": {"precision": "fp32", "devices": 1},
        "run_dir": str(folder / "run"),
        **sections,
    }
    (folder / "joint.yaml").write_text(json.dumps(content))
    return folder / "joint.yaml"


@pytest.mark.slow
def test_a_task_counts_by_its_weight_over_its_own_targets(files: Files, tmp_path: Path) -> None:
    """Written out from micro-batches of one task each; the step's own row mixes the tasks."""
    tasks = files("sentiment", "ner", "qa")
    path = joint(tmp_path, tasks, task={"weights": {"ner": 3.0}, "alpha": 0.5}, model={"dropout": 0.0})
    module: Any = build(load_config(path)).train()
    data, store = module.data, module.data.stores["train"]
    batch = data.plan.global_batch(2)
    module.shares = data.shares("train", batch)
    expected = 0.0
    for name, (first, count) in data.bounds("train").items():
        own = batch[(batch >= first) & (batch < first + count)]
        loss = module.loss(pack(store, own))[0] / module.shares[name]
        expected += {"ner": 3.0}.get(name, 1.0) * float(loss) / float(store.targets[own].sum())
    whole = float(module.loss(pack(store, batch))[0]) / float(store.targets[batch].sum())
    assert len(module.shares) == 3 and whole == pytest.approx(expected, rel=1e-5)
    padded = float(module.loss(pack(store, np.sort(batch)))[0]) / float(store.targets[batch].sum())
    assert padded == pytest.approx(expected, rel=1e-5)
    assert module.backbone.model.config.num_labels == 2 + len(data.parts["ner"].labels) + 2


@pytest.mark.slow
def test_heads_of_tasks_without_examples_stay_as_they_are(files: Files, tmp_path: Path) -> None:
    path = joint(tmp_path, files("sentiment", "ner"), task={"train": ["ner"]}, optim={"max_steps": 2, "lr": 0.01})
    untrained: Any = build(load_config(path))
    before = untrained.backbone.model.classifier.weight.detach().clone()
    assert main(["train", str(path), "wandb.mode=disabled", "optim.batch_size=4"]) == 0
    after = weights(Run(tmp_path / "run"))["classifier.weight"]
    assert torch.equal(after[:2], before[:2]) and not torch.equal(after[2:], before[2:])


def test_memory_has_as_many_examples_of_each_class() -> None:
    labels = ["a"] * 30 + ["b"] * 3 + ["c"] * 50
    kept = remembered(83, labels, 5, seed=1, task=0)
    assert [sum(labels[i] == name for i in kept) for name in "abc"] == [5, 3, 5]
    assert kept.tolist() == remembered(83, labels, 5, seed=1, task=0).tolist() == sorted(kept)
    assert kept.tolist() != remembered(83, labels, 5, seed=2, task=0).tolist()
    assert len(remembered(83, None, 5, 1, 0)) == 5


def test_the_mean_is_of_scores_from_zero_to_one() -> None:
    assert normalised(replace(MEAN, low=-1.0), np.array(0.0)) == 0.5
    assert normalised(replace(MEAN, smaller_is_better=True), np.array(0.2)) == pytest.approx(0.8)


@pytest.mark.slow
def test_bad_input_is_one_line(files: Files, tmp_path: Path) -> None:
    a, b = files("sentiment", "ner")
    wrong: list[tuple[list[str], dict[str, Any], str]] = [
        ([a, b], {"data": {"train": "x"}}, r"data.train: with tasks, this is said by the file of each task"),
        ([a, b], {"optim": {"label_smoothing": 0.1}}, r"optim.label_smoothing: with tasks"),
        ([a, a], {}, r"two files called sentiment"),
        ([a, "none.yaml"], {}, r"tasks names none.yaml, which is no file in"),
        ([], {}, r"tasks must be a list of experiments"),
        ([a, b], {"task": {"weights": {"x": 1.0}}}, r"task 'x' is none of the tasks, which are sentiment, ner"),
        ([a, *files("matching")], {}, r"tasks: matching: task 'matching' has no head of scores to share"),
    ]
    for tasks, sections, said in wrong:
        with pytest.raises(UserError, match=said):
            build(load_config(joint(tmp_path, tasks, **sections)))
    with pytest.raises(UserError, match=r"tasks share one encoder, but sentiment has .*; name the same in each file"):
        load_config(joint(tmp_path, [a, *files("ner", model=tmp_path)]))
    content = json.loads(Path(a).read_text())
    del content["data"]["test"]
    Path(a).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"but sentiment has train and validation, ner has train and validation and"):
        load_config(joint(tmp_path, [a, *files("ner")]))
    with pytest.raises(UserError, match=r"model\.head=linear: task 'matching' has no head of scores; leave it at own"):
        build(load_config(a, ["task=matching", "model.head=linear"]))
    with pytest.raises(UserError, match="task 'multi' has no tasks"):
        build(load_config(a, ["task=multi"]))


@pytest.mark.slow
def test_a_run_scores_each_task_and_their_mean(small_runs: SmallRuns, files: Files, tmp_path: Path) -> None:
    tasks, optim = files("sentiment", "ner", "qa"), {"batch_size": 12, "lr": 5e-3, "max_steps": 6, "eps": 1e-6}
    often = "trainer.evaluate_every_steps=2"
    run = small_runs.train("multi", often, tasks=tasks, optim=optim)
    result = run.result
    assert result is not None and result["monitor"] == "mean"
    scores = result["metrics"]["test"]
    assert scores["mean"] == pytest.approx(np.mean([scores[f"{x}"] for x in ("sentiment.accuracy", "ner.f1", "qa.f1")]))
    assert [result["tasks"][name]["main"] for name in ("sentiment", "ner", "qa")] == ["accuracy", "f1", "f1"]
    table = pq.read_table(run.predictions / "test.parquet")
    assert metric(table).count(table, "mean").metric == pytest.approx(scores["mean"], abs=1e-12)
    slices = list(metric(table).parts([table, table]))  # of one task each
    assert {"sentiment", "ner"} <= {each.by.partition(":")[0] for each in slices} <= {"sentiment", "ner", "qa"}
    labels = [each for each in slices if each.by == "sentiment: gold label"]
    assert [(each.value, each.size, each.values.shape[:2]) for each in labels] == [
        ("negative", 7, (2, 7)),
        ("positive", 6, (2, 6)),
    ]
    assert set(settings(table)["tasks"]) == {"sentiment", "ner", "qa"} and len(table) == 39
    assert main(["evaluate", str(run.path), "--split", "test"]) == 0
    [again] = map(json.loads, (run.path / "evaluations.jsonl").read_text().splitlines())
    assert again["scores"] == scores
    padded = small_runs.train("multi", often, "trainer.packing=false", tasks=tasks, optim=optim)
    assert_same_up_to_rounding(padded, run)
    small = small_runs.train("multi", often, "trainer.tokens_per_microbatch=32", tasks=tasks, optim=optim)
    assert_same_up_to_rounding(small, run)
    assert_each_task_has_a_run_of_its_own(run, tmp_path)
    assert main(["report", str(run.path), "--output", str(tmp_path / "paper")]) == 0
    assert "mean of the tasks" in (tmp_path / "paper" / "index.html").read_text()


def assert_each_task_has_a_run_of_its_own(run: Run, folder: Path) -> None:
    """Of its best checkpoint, with the scores that the joint run saw there; it evaluates, predicts and is exported."""
    rows = [row for row in run.metrics() if "validation/mean" in row]
    assert list(run.parts) == ["ner", "qa", "sentiment"] and len(rows) == 3
    for name, score in {"sentiment": "accuracy", "ner": "f1", "qa": "f1"}.items():
        part = Run.read(run.parts[name])
        result = part.result
        assert result is not None and result["monitor"] == score
        [then] = [row for row in rows if row["step"] == result["best_step"]]
        seen = {key.removeprefix(f"validation/{name}."): x for key, x in then.items() if f"/{name}." in key}
        assert result["metrics"]["validation"] == pytest.approx(seen, abs=1e-6)
        assert seen[score] == max(row[f"validation/{name}.{score}"] for row in rows)
        assert main(["evaluate", str(part.path), "--split", "test"]) == 0
        [again] = map(json.loads, (part.path / "evaluations.jsonl").read_text().splitlines())
        assert {**again["scores"], "loss": 0} == pytest.approx({**result["metrics"]["test"], "loss": 0}, abs=1e-6)
        output = folder / f"{name}.parquet"
        assert main(["predict", str(part.path), "--input", part.config.data.test or "", "--output", str(output)]) == 0
        recorded = pq.read_table(part.predictions / "test.parquet")
        assert pq.read_table(output)["prediction"].to_pylist() == recorded["prediction"].to_pylist()
    assert research.load(run.path).tasks["ner"].scores == Run.read(run.parts["ner"]).result["metrics"]
    assert names_of([f"both={run.path}"]) == {f"both.{name}": path.resolve() for name, path in run.parts.items()}
    assert main(["export", str(run.parts["qa"]), "--output", str(folder / "deploy")]) == 0
    assert load_exported(folder / "deploy").config.task.name == "qa"
    for command in (
        ["predict", str(run.path), "--text", "a"],
        ["export", str(run.path), "--output", str(folder / "x")],
    ):
        assert main(command) == 2


@pytest.mark.slow
def test_a_task_alone_may_have_the_linear_head(small_runs: SmallRuns) -> None:
    """It is that of token classification, read at the first token."""
    run = small_runs.train("sentiment", "model.head=linear")
    loaded = AutoModelForTokenClassification.from_pretrained(run.model).eval()
    tokens = AutoTokenizer.from_pretrained(run.model)
    [row] = pq.read_table(run.predictions / "test.parquet").slice(0, 1).to_pylist()
    with torch.no_grad():
        logits = loaded(**tokens(row["text"], return_tensors="pt", truncation=True, max_length=48)).logits[0, 0]
    assert row["probabilities"] == pytest.approx(torch.softmax(logits, -1).tolist(), abs=1e-5)


@pytest.mark.slow
def test_own_task_file_is_one_of_several(files: Files, tmp_path: Path) -> None:
    """Beside the package's: found from the experiment's folder, and kept with the run as its own code is."""
    (tmp_path / "mine.py").write_text("from research.tasks.classification import Data, Module\n")
    [path] = map(Path, files("sentiment"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "task": "./mine.py"}))
    config = load_config(joint(tmp_path, [str(path), *files("ner")]))
    module: Any = build(config)
    assert type(module.part("sentiment")).__module__ == "research.tasks.classification"
    assert users_files(config, "multi") == {"task mine": tmp_path / "mine.py"}


@pytest.mark.slow
@pytest.mark.process
def test_ranks_that_lack_a_task_change_nothing(small_runs: SmallRuns, files: Files) -> None:
    tasks = files("sentiment", "ner")
    optim = {"batch_size": 3, "lr": 5e-3, "max_steps": 6, "eps": 1e-6}  # three examples on two ranks
    alone = small_runs.train("multi", "task.alpha=0.3", optim=optim, tasks=tasks)
    shared = small_runs.train_ranks("multi", 2, "task.alpha=0.3", optim=optim, tasks=tasks)
    assert_same_up_to_rounding(shared, alone)
    for name, part in shared.parts.items():
        torch.testing.assert_close(weights(Run(part)), weights(Run(alone.parts[name])), rtol=0, atol=5e-5)


@pytest.mark.slow
def test_killed_and_resumed_is_bit_equal(small_runs: SmallRuns, files: Files) -> None:
    keys = ("task.alpha=0.3", "model.dropout=0.1", "trainer.evaluate_every_steps=2", "trainer.monitor=ner.f1")
    own = {"tasks": files("sentiment", "ner")}
    reference = small_runs.train("multi", *keys, **own)
    arguments, folder = small_runs.stopped(4, "multi", *keys, **own)
    assert main(arguments) == 0
    assert_same_bits(Run(folder), reference)
    assert reference.result is not None and reference.result["monitor"] == "ner.f1"
    for name, part in Run(folder).parts.items():
        assert_same_bits(Run(part), Run(reference.parts[name]))


@pytest.mark.slow
def test_each_task_may_have_a_sample_of_validation(small_runs: SmallRuns, files: Files) -> None:
    often = ("trainer.evaluate_every_steps=3", "trainer.evaluate_examples=6")
    run = small_runs.train("multi", *often, tasks=files("sentiment", "ner"), optim={"batch_size": 8, "max_steps": 6})
    assert run.provenance["data"]["sample"]["examples"] == 12
    assert len(pq.read_table(run.predictions / "validation.parquet")) > 12
    part = Run(run.path / "tasks" / "ner")
    assert [row["step"] for row in part.metrics() if "sample/f1" in row] == [3, 6]
    result = part.result or {}
    assert result["metrics"]["validation"]["f1"] >= 0 and part.provenance["data"]["sample"]["examples"] == 6
