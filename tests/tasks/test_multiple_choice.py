"""Multiple choice, the task that shows how a task is added."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from research.batching.pack import pack
from research.batching.plan import evaluation_share
from research.cli import main
from research.tracking.run import Run
from tests.tasks.conftest import Build

ROWS = [
    {
        "text": f"where is {'Anna' if i % 2 else 'Oslo'}",
        "choices": ["a city", "in the river", "bad"][: 2 + i % 2],
        "label": i % 2,
    }
    for i in range(12)
]


@pytest.fixture
def task() -> str:
    return "choice"


def test_loss_is_cross_entropy_over_the_choices_of_each_example(build: Build) -> None:
    module = build(ROWS).eval()
    store = module.data.stores["validation"]
    (share,) = evaluation_share(store.tokens, 0, 1, 10_000)
    micro = pack(store, share)
    scores = module.backbone.sequence_logits(micro)[:, 0]
    expected, start = 0.0, 0
    for row in dict.fromkeys(micro.examples.tolist()):
        count = 2 + row % 2
        logits = scores[start : start + count]
        expected += torch.nn.functional.cross_entropy(logits, torch.tensor(row % 2)).item()
        start += count
    assert start == len(scores) == 30
    assert module.loss(micro)[0].item() == pytest.approx(expected, rel=1e-6)


def test_trains_and_scores(build: Build, tmp_path: Path) -> None:
    build(ROWS)
    assert main(["train", str(tmp_path / "choice.yaml")]) == 0
    result = Run.read(tmp_path / "run").result
    assert result is not None
    assert 0 <= result["metrics"]["validation"]["accuracy"] <= 1
    assert result["examples"] == 12
