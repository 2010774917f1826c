"""A head that was trained before is taken over by the names of its labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from research.config.load import load_config as load_experiment
from research.models.load import load_config, load_model
from tests.conftest import make_tiny_model

TRAINED = {0: "negative", 1: "neutral", 2: "positive"}


@pytest.fixture
def trained(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A model folder with a classification head for TRAINED, or for the labels of the test's parameter."""
    names = getattr(request, "param", TRAINED)
    folder = make_tiny_model(tmp_path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(folder, id2label=names, num_labels=len(names))
    torch.nn.init.normal_(model.classifier.weight)
    torch.nn.init.normal_(model.classifier.bias)
    model.save_pretrained(folder)
    return folder


def head(folder: Path, labels: list[str], auto_class: type = AutoModelForSequenceClassification) -> torch.Tensor:
    """The head's weights and biases (C, H + 1) as a run with these labels starts from them."""
    path = folder.parent / "e.yaml"
    data = {"train": "x.jsonl"}
    path.write_text(json.dumps({"task": "sentiment", "model": {"name": str(folder)}, "data": data}))
    config = load_experiment(path)
    model = load_model(config, load_config(config, labels), auto_class)
    head: Any = model.classifier
    return torch.cat([head.weight, head.bias[:, None]], 1).detach()


def as_saved(folder: Path) -> torch.Tensor:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    head: Any = model.classifier
    return torch.cat([head.weight, head.bias[:, None]], 1).detach()


@pytest.mark.in_check(1)
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_rows_follow_their_labels(trained: Path, caplog: pytest.LogCaptureFixture, order: list[int]) -> None:
    assert torch.equal(head(trained, [TRAINED[i] for i in order]), as_saved(trained)[order])
    assert ("taken by their names" in caplog.text) is (order != [0, 1, 2])


@pytest.mark.in_check(1)
@pytest.mark.parametrize("labels", [["a", "b", "c"], ["negative", "neutral", "Positive"], ["negative", "positive"]])
def test_other_names_get_a_new_head_and_a_word(
    trained: Path, caplog: pytest.LogCaptureFixture, labels: list[str]
) -> None:
    rows = head(trained, labels)
    assert rows.shape[0] == len(labels)
    assert not any(torch.equal(row, old) for row in rows for old in as_saved(trained))
    assert rows[:, :-1].std() < 0.05 and torch.equal(rows[:, -1], torch.zeros(len(labels)))
    assert f"trained for the labels negative, neutral, positive; here they are {', '.join(labels)}" in caplog.text


@pytest.mark.parametrize("trained", [{0: "LABEL_0", 1: "LABEL_1"}], indirect=True)
def test_labels_without_names_are_numbers(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert torch.equal(head(trained, ["0", "1"]), as_saved(trained)) and not caplog.text
    assert not torch.equal(head(trained, ["bad", "good"]), as_saved(trained))
    assert "a new head is initialised" in caplog.text


def test_a_model_without_a_head_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    head(make_tiny_model(tmp_path / "model"), ["a", "b", "c"])
    assert not caplog.text


def test_tags_are_labels_too(trained: Path) -> None:
    folder = make_tiny_model(trained.parent / "tagger")
    names = {0: "O", 1: "B-PER", 2: "I-PER"}
    model = AutoModelForTokenClassification.from_pretrained(folder, id2label=names, num_labels=3)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder)
    rows = head(folder, ["I-PER", "O", "B-PER"], AutoModelForTokenClassification)
    assert torch.equal(rows[:, :-1], model.classifier.weight.detach()[[2, 0, 1]])
