"""BERTScore: the numbers of the package `bert-score`, in a run's predictions and scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bert_score import BERTScorer

from research.common.errors import UserError
from research.metrics import metric_of
from research.models.bert_score import BertScore
from tests.conftest import make_tiny_model
from tests.tasks.test_translation import build, rows

OUTPUTS = ["the film was good", "a book of Oslo", "Anna", "a good good film in the city of Oslo , not very bad"]
REFERENCES = [["the film is very good", "a good film"], ["the book of the city"], ["Anna is in Oslo"], ["the river"]]


@pytest.mark.slow
def test_equals_the_package(tmp_path: Path) -> None:
    for kind, layer in (("bert", 1), ("bert", 2), ("roberta", 2)):
        folder = str(make_tiny_model(tmp_path / kind, kind))
        official = BERTScorer(model_type=folder, num_layers=layer, device="cpu", batch_size=3)
        _, _, expected = official.score(OUTPUTS, REFERENCES)  # of several references the best
        assert BertScore(folder, layer)(OUTPUTS, REFERENCES) == pytest.approx(expected.tolist(), abs=1e-5)
    assert BertScore(folder, None).layer == 2
    assert BertScore(folder, 1)(["", "good"], [["bad"], ["good"]]) == [0.0, pytest.approx(1.0)]  # no tokens; the same


@pytest.mark.slow
def test_a_task_keeps_the_values_with_its_predictions(tmp_path: Path, tiny_model: Path) -> None:
    module = build(tmp_path, "bart", "task.metrics=[bertscore]", f"task.bertscore_model={tiny_model}", data=rows(4))
    data, split = module.data, module.data.splits["validation"]
    targets = split.rows["target"][:]
    found = {i: {"text": text, "ended": True, "stopped_by": "end"} for i, text in enumerate([*targets[:3], "Oslo"])}
    columns = data.table(split, found)
    assert columns["bertscore"][:3] == pytest.approx([1.0] * 3) and columns["bertscore"][3] < 0.999
    metric = metric_of({"scorer": "text", **data.score_settings()})
    table = metric.table(columns["prediction"], columns["gold"], **{k: columns[k] for k in ("bertscore", "ended")})
    assert metric.score(table)["bertscore"] == pytest.approx(np.mean(columns["bertscore"]))
    assert f"bertscore|refs:1, best|model:{tiny_model.name}|weights:" in metric.signature
    assert "|layer:2 of 2|idf:no|rescaled:no" in metric.signature and module.monitored == "bertscore"
    assert metric.example_scores(table).tolist() == columns["bertscore"]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["task.metrics=[bertscore]"],
            "task.metrics has bertscore, which needs task.bertscore_model: the folder of an",
        ),
        (["task.bertscore_layer=1"], "task.bertscore_layer acts with bertscore among task.metrics alone; add it there"),
        (["task.metrics=[bertscore]", "task.bertscore_model=none"], "task.bertscore_model=none cannot be loaded: "),
        (["task.metrics=[comet]"], "cannot have comet: its package unbabel-comet needs transformers below 5"),
    ],
)
def test_bad_keys(overrides: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        build(tmp_path, "bart", *overrides, data=rows(4))


def test_a_layer_that_is_not_there(tiny_model: Path) -> None:
    with pytest.raises(UserError, match=r"task.bertscore_layer=3: .* has 2 layers\."):
        BertScore(str(tiny_model), 3)
