"""Multiple choice, the task that shows how a task is added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from research.batching.pack import pack
from research.batching.plan import evaluation_share
from research.cli import main
from research.common.errors import UserError
from research.tracking.run import Run
from tests.conftest import write_jsonl
from tests.tasks.conftest import Build

ROWS: list[dict[str, Any]] = [
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


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        ({"label": 2}, r"rows\.jsonl, line 3: the label 2 is not the number of one of the 2 choices; write 0 for the"),
        ({"label": -1}, "line 3: the label -1 is not the number"),
        ({"choices": []}, "line 3: 'choices' is empty"),
        ({"choices": "ab"}, "line 3: 'choices' holds a text but an array in"),
        ({"choices": [1, 2]}, "'choices' holds"),
    ],
)
def test_a_row_that_cannot_be_chosen_from_names_its_line(build: Build, change: dict[str, Any], fragment: str) -> None:
    with pytest.raises(UserError, match=fragment):
        build([*ROWS[:2], {**ROWS[2], **change}, *ROWS[3:]])


def test_text_where_choices_belong(build: Build) -> None:
    with pytest.raises(UserError, match="'choices' holds string; write lists of text"):
        build([{**row, "choices": "ab"} for row in ROWS])


@pytest.mark.parametrize("key", ["optim.balance_classes=true", "optim.class_weights={'0': 2}", "data.labels=['0','1']"])
def test_keys_of_classes_are_refused(build: Build, key: str) -> None:
    with pytest.raises(UserError, match="task 'choice' has no classes for"):
        build(ROWS, key)


def test_label_smoothing_spreads_over_the_choices(build: Build) -> None:
    module = build(ROWS, "optim.label_smoothing=0.2", "model.dropout=0")
    store = module.data.stores["train"]
    micro = pack(store, evaluation_share(store.tokens, 0, 1, 10_000)[0])
    plain, log_p = module.eval().loss(micro)
    smooth, _ = module.train().loss(micro)
    assert smooth.item() == pytest.approx(0.8 * plain.item() - 0.2 * sum(p.mean().item() for p in log_p), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("label", [None, 7, "unknown"])
def test_predict_needs_no_label(build: Build, tmp_path: Path, label: Any) -> None:
    build(ROWS)
    assert main(["train", str(tmp_path / "choice.yaml")]) == 0
    new = {"text": "where is Acme", "choices": ["a city", "good", "bad", "a river"]}
    rows = [new if label is None else {**new, "label": label}]
    source, target = write_jsonl(tmp_path / "new.jsonl", rows), tmp_path / "out.jsonl"
    assert main(["predict", str(tmp_path / "run"), "--input", str(source), "--output", str(target)]) == 0
    (row,) = [json.loads(line) for line in target.read_text().splitlines()]
    assert row["prediction"] in "0123" and len(row["probabilities"]) == 4
    assert row.get("gold") == (None if label is None else str(label))


def test_the_score_of_a_choice_is_the_mean_over_the_windows_of_its_text(build: Build) -> None:
    rows = [{**row, "text": " ".join([row["text"]] * (1 + 10 * (i % 2)))} for i, row in enumerate(ROWS)]
    module = build(rows, "data.long=window").eval()
    store = module.data.stores["train"]
    micro = pack(store, np.arange(4), module.backbone.packed)
    # 33 tokens of text, 3 special ones, and 2, 3 and 1 of the choices: 27, 26 and 28 are read at a time
    assert store.columns["choice"].rows(np.arange(2))[1].tolist() == [0, 0, 1, 1, 2, 2]
    with torch.no_grad():
        scores = module.backbone.sequence_logits(micro)[:, 0]
        loss, outputs = module.loss(micro)
    first, second = torch.log_softmax(scores[:2], 0), torch.log_softmax(scores[2:8].view(3, 2).mean(1), 0)
    assert torch.equal(outputs[0], first) and torch.allclose(outputs[1], second) and len(outputs) == 4
    assert float(loss) == pytest.approx(-float(outputs[0][0] + outputs[1][1] + outputs[2][0] + outputs[3][1]))
    assert module.data.overview["train"].windowed == 6
