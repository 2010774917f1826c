"""Multiple choice, the task that shows how a task is added."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from research import train
from research.config import load_config
from tests.conftest import write_jsonl


@pytest.fixture
def experiment(tmp_path: Path, tiny_model: Path) -> Path:
    rows = [
        {
            "text": f"where is {'Anna' if i % 2 else 'Oslo'}",
            "choices": ["a city", "in the river", "bad"][: 2 + i % 2],
            "label": i % 2,
        }
        for i in range(12)
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    path = tmp_path / "choice.yaml"
    path.write_text(
        f"task: choice\nmodel: {{name: {tiny_model}}}\n"
        f"data: {{train: {tmp_path}/rows.jsonl, validation: {tmp_path}/rows.jsonl}}\n"
        "optim: {epochs: 1, batch_size: 4}\ntrainer: {precision: fp32}\nwandb: {mode: disabled}\n"
    )
    return path


def test_loss_is_cross_entropy_over_the_choices_of_each_example(experiment: Path) -> None:
    module = train.build(load_config(experiment)).eval()
    (micro,) = list(_batches(module))
    scores = module.encoder.sequence_logits(micro)[:, 0]
    expected, start = 0.0, 0
    for row in dict.fromkeys(micro.examples.tolist()):
        count = 2 + row % 2
        logits = scores[start : start + count]
        expected += float(torch.nn.functional.cross_entropy(logits, torch.tensor(row % 2)))
        start += count
    assert start == len(scores) == 30
    assert float(module.loss(micro)[0]) == pytest.approx(expected, rel=1e-6)


def test_trains_and_scores(experiment: Path, tmp_path: Path) -> None:
    assert train.train(load_config(experiment, [f"run_dir={tmp_path}/run"])) == 0
    from research.run import Run

    result = Run.read(tmp_path / "run").result
    assert result is not None
    assert 0 <= result["metrics"]["validation"]["accuracy"] <= 1
    assert result["examples"] == 12


def _batches(module):  # type: ignore[no-untyped-def]
    from research.data.pack import pack
    from research.data.plan import evaluation_share

    store = module.data.stores["validation"]
    return [pack(store, rows) for rows in evaluation_share(store.tokens, 0, 1, 10_000)]
