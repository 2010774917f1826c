"""Ordered labels: their order, spread targets, the median."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from research.batching.pack import pack
from research.common.errors import UserError
from research.data.source import Split
from tests.tasks.conftest import Build


@pytest.fixture
def task() -> str:
    return "ordinal"


def rows(labels: tuple[Any, ...] = (10, 2, 9, 1)) -> list[dict[str, Any]]:
    return [{"text": f"film {label} {i}", "label": label} for i, label in enumerate(labels)]


def test_the_order_is_that_of_numbers_or_declared(build: Build, tmp_path: Path) -> None:
    assert build(rows()).data.labels == ["1", "2", "9", "10"]
    words = rows(("good", "bad", "fair"))
    assert build(words, "data.labels=[bad, fair, good]").data.labels == ["bad", "fair", "good"]
    with pytest.raises(UserError, match=r"the labels bad, fair, good are not integers.*data\.labels"):
        build(words)


def test_targets_are_spread_in_training_alone(build: Build) -> None:
    module = build(rows(), "task.spread=1.5", "model.dropout=0", "trainer.packing=false")
    micro = pack(module.data.stores["train"], np.arange(4), False)
    with torch.no_grad():
        plain, logits = module.eval().loss(micro)
        spread, _ = module.train().loss(micro)
    probabilities, gold = torch.log_softmax(logits, 1).double().numpy(), np.array([3, 1, 2, 0])
    soft = np.exp(-(((np.arange(4) - gold[:, None]) / 1.5) ** 2))
    soft /= soft.sum(axis=1, keepdims=True)
    assert float(spread) == pytest.approx(-(probabilities * soft).sum(), rel=1e-5)
    assert float(plain) == pytest.approx(-probabilities[np.arange(4), gold].sum(), rel=1e-5)
    with pytest.raises(UserError, match=r"remove optim\.label_smoothing"):
        build(rows(), "task.spread=1", "optim.label_smoothing=0.1")


def test_the_median_is_the_level_that_halves_the_probability(build: Build) -> None:
    module = build(rows(), "task.answer=median")
    split = Split("input", Dataset.from_dict({"id": ["a", "b"]}), "memory", False, "")
    found = {
        0: {"probabilities": np.array([0.4, 0.05, 0.3, 0.25])},
        1: {"probabilities": np.array([0.1, 0.1, 0.1, 0.7])},
    }
    assert module.data.table(split, found)["prediction"] == ["9", "10"]
