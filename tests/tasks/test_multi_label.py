"""Texts with any number of labels: how labels are written, the loss, and the threshold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score

from research.cli import main
from research.config.load import load_config
from research.data.label_sets import read_label_sets, separator_of
from research.data.opening import open_split
from research.tasks.multi_label import bits_of
from research.tracking.run import Run
from research.training.build import build
from tests.conftest import write_jsonl
from tests.small_runs import SmallRuns, losses

WORDS = ["good", "bad", "film", "Anna", "Oslo"]


def rows(count: int, form: str = "list") -> list[dict[str, Any]]:
    found = []
    for i in range(count):
        labels = [word for k, word in enumerate(WORDS[:3]) if (i >> k) & 1]
        label: Any = {"list": labels, "json": json.dumps(labels), "repr": str(labels), ";": ";".join(labels),
                      "|": " | ".join(labels)}[form]  # fmt: skip
        found.append({"text": " ".join([*labels, WORDS[3 + i % 2]]), "label": label})
    return found


def files(folder: Path, form: str) -> dict[str, Any]:
    sizes = {"train": 40, "validation": 21, "test": 13}
    paths = {split: str(write_jsonl(folder / f"{form.encode().hex()}-{split}.jsonl", rows(count, form)))
             for split, count in sizes.items()}  # fmt: skip
    return {**paths, "max_overlap": 1.0}


@pytest.mark.slow
def test_every_form_of_labels_trains_alike(small_runs: SmallRuns, tmp_path: Path) -> None:
    optim = {"batch_size": 8, "lr": 1e-2, "max_steps": 120}
    data = {form: files(tmp_path, form) for form in ("list", "json", "repr", ";", "|")}
    run = small_runs.train("multi_label", data={**data["list"], "max_length": 48}, optim=optim)
    assert run.result is not None and run.result["learned"]["labels"] == ["bad", "film", "good"]
    scores = run.result["metrics"]
    assert scores["test"]["micro_f1"] > 0.8 and 0 < scores["validation"]["threshold"] < 1
    table = pq.read_table(run.predictions / "test.parquet").to_pylist()
    threshold = scores["validation"]["threshold"]
    for row in table:
        chosen = [
            label for label, p in zip(["bad", "film", "good"], row["probabilities"], strict=True) if p > threshold
        ]
        assert row["prediction"] == chosen
    for form in ("json", "repr", ";", "|"):
        other = small_runs.train("multi_label", "optim.max_steps=3", data={**data[form], "max_length": 48}, optim=optim)
        assert losses(other)[:1] == losses(run)[:1], form  # the schedule differs after the first step


@pytest.mark.slow
def test_each_label_may_have_its_own_threshold(
    small_runs: SmallRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one of its best F1 on validation, for test data and new texts alike."""
    data = {**files(tmp_path, "list"), "max_length": 48}
    run = small_runs.train("multi_label", "task.best_thresholds=each", data=data, optim={"max_steps": 12, "lr": 1e-2})
    assert run.result is not None
    scores, labels = run.result["metrics"]["validation"], run.result["learned"]["labels"]
    validation = pq.read_table(run.predictions / "validation.parquet").to_pylist()
    limits = []
    for i, label in enumerate(labels):
        gold = np.array([label in row["gold"] for row in validation])
        p = np.array([row["probabilities"][i] for row in validation])
        reached = f1_score(gold, p > scores[f"threshold/{label}"], zero_division=0)
        assert reached == pytest.approx(max(f1_score(gold, p > limit, zero_division=0) for limit in [0, *p]))
        limits.append(scores[f"threshold/{label}"])
    assert "threshold" not in scores and len(set(limits)) == 3
    for row in pq.read_table(run.predictions / "test.parquet").to_pylist():
        assert row["prediction"] == [labels[i] for i in np.flatnonzero(np.array(row["probabilities"]) > limits)]
    assert main(["evaluate", str(run.path), "--split", "test"]) == 0
    (again,) = map(json.loads, (run.path / "evaluations.jsonl").read_text().splitlines())
    assert again["scores"] == run.result["metrics"]["test"]
    keys = ["task.best_thresholds=each", "task.threshold=0.4"]
    arguments, _ = small_runs.arguments("multi_label", keys, {"data": data})
    assert main(arguments) == 2 and "task.best_thresholds=each asks for one of each" in capsys.readouterr().err


@pytest.mark.slow
def test_loss_is_the_mean_binary_cross_entropy(small_runs: SmallRuns, tmp_path: Path) -> None:
    """Of the first step, and of many labels: more than fit in one number."""
    run = small_runs.train(
        "multi_label", "optim.max_steps=1", data={**files(tmp_path, "list"), "max_length": 48},
        optim={"batch_size": 40, "lr": 1e-9},
    )  # fmt: skip
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(run.model).eval()
    assert model.config.problem_type == "multi_label_classification"
    tokens = AutoTokenizer.from_pretrained(run.model)(
        [row["text"] for row in rows(40)], padding=True, return_tensors="pt"
    )
    gold = torch.tensor([[float(label in row["label"]) for label in ("bad", "film", "good")] for row in rows(40)])
    with torch.inference_mode():
        expected = F.binary_cross_entropy_with_logits(model(**tokens).logits, gold)
    assert losses(run)[0] == pytest.approx(float(expected), abs=1e-5)


def test_labels_as_bits() -> None:
    known = [str(i) for i in range(70)]
    words = bits_of(["0", "31", "32", "69"], known)
    assert words == [1 | 1 << 31, 1, 1 << 5]
    bits = (np.array(words)[:, None] >> np.arange(32)) & 1
    assert np.flatnonzero(bits.ravel()).tolist() == [0, 31, 32, 69]


@pytest.mark.parametrize(
    ("written", "labels"),
    [
        ('["b, c", "a"]', ["b, c", "a"]), ("['a', 'b']", ["a", "b"]), ("[\"it's\", 'b']", ["it's", "b"]),
        ("('a', 'b')", ["a", "b"]), ("{'b', 'a'}", ["a", "b"]), ("['a' 'b c']", ["a", "b c"]),
        ("['a'\n 'b']", ["a", "b"]), ("[1, 2]", ["1", "2"]), ("[]", []), ("", []), ("a; b;", ["a", "b"]),
        ("(a)", ["(a)"]),
    ],
)  # fmt: skip
def test_lists_written_as_text(written: str, labels: list[str], tmp_path: Path) -> None:
    """JSON, Python's lists, tuples and sets, NumPy's arrays (as pandas writes them), and separated text."""
    path = write_jsonl(tmp_path / "rows.jsonl", [{"label": written}])
    split = open_split(
        name="train", value=str(path), hub_name=None, hub_config=None, hub_revision=None, fields={"label": "label"}
    )
    assert read_label_sets(split, separator_of([split])).rows["label"][:] == [labels]


def test_labels_of_all_splits_are_read_alike(tmp_path: Path, tiny_model: Path) -> None:
    """A separator that one split alone shows is that of all, and of data that a finished run scores; in CSV files."""
    lines = {"train": ["good,x;bad", "bad"], "validation": ["good,x", "bad"], "test": ["good,x", "bad;good,x"]}
    for name, labels in lines.items():
        rows = "".join(f'"a {i} {name}","{label}"\n' for i, label in enumerate(labels))
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{rows}")
    data = {name: str(tmp_path / f"{name}.csv") for name in lines}
    experiment = tmp_path / "e.yaml"
    experiment.write_text(json.dumps({"task": "multi_label", "model": {"name": str(tiny_model)}, "data": data}))
    opened = build(load_config(experiment)).data
    assert opened.labels == ["bad", "good,x"] and opened.learned()["separator"] == ";"
    assert opened.splits["validation"].rows["label"][:] == [["good,x"], ["bad"]]
    again = type(opened)(opened.config, opened.tokenizer)
    again.open(opened.learned(), only="validation")
    assert again.splits["validation"].rows["label"][:] == [["good,x"], ["bad"]]


def test_labels_that_are_no_list(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value, reason in (("[a, b", "is no list; write"), (1.5, "is no list of labels; write")):
        path = write_jsonl(tmp_path / "train.jsonl", [{"text": "a", "label": value}])
        experiment = tmp_path / "e.yaml"
        experiment.write_text(json.dumps({"task": "multi_label", "model": {"name": str(tiny_model)},
                                          "data": {"train": str(path)}}))  # fmt: skip
        assert main(["show", str(experiment)]) == 2
        said = capsys.readouterr().err
        assert f"{path}, line 1: the label" in said and reason in said


@pytest.mark.slow
def test_two_ranks_and_padding_give_the_same(small_runs: SmallRuns, tmp_path: Path) -> None:
    data = {**files(tmp_path, "list"), "max_length": 16, "long": "window"}
    whole = small_runs.train("multi_label", data=data)
    for other in (
        small_runs.train_ranks("multi_label", 2, data=data),
        small_runs.train("multi_label", "trainer.packing=false", data=data),
    ):
        assert losses(other) == pytest.approx(losses(whole), abs=2e-5)
        assert scores_of(other) == pytest.approx(scores_of(whole), abs=1e-3)


def scores_of(run: Run) -> dict[str, float]:
    assert run.result is not None
    return {name: value for name, value in run.result["metrics"]["test"].items() if isinstance(value, float)}
