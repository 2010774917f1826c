"""A number for a text: learned, exported as `transformers` reads it, and refused where it is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from research.cli import main
from research.config.load import load_config
from research.tasks.regression import number
from research.training.build import open_data
from tests.conftest import write_experiment, write_jsonl
from tests.small_runs import SmallRuns, losses

STARS = ["bad", "film", "river", "good"]


def rows(count: int) -> list[dict[str, Any]]:
    return [{"text": f"{STARS[i % 4]} {'Anna Oslo '[: 5 * (i % 3)]}", "score": f"{i % 4},5"} for i in range(count)]


@pytest.mark.slow
def test_a_number_is_learned_and_exported(small_runs: SmallRuns, tmp_path: Path) -> None:
    sizes = {"train": 40, "validation": 21, "test": 13}
    data = {name: str(write_jsonl(tmp_path / f"{name}.jsonl", rows(count))) for name, count in sizes.items()}
    data |= {"max_length": 48, "max_overlap": 1.0}  # type: ignore[dict-item]
    optim = {"batch_size": 8, "lr": 5e-3, "max_steps": 80}
    run = small_runs.train("regression", data=data, optim=optim)
    assert run.result is not None
    assert run.result["metrics"]["test"]["pearson"] > 0.9 and run.result["metrics"]["test"]["mae"] < 0.5
    table = pq.read_table(run.predictions / "test.parquet")
    assert table["gold"].to_pylist() == [i % 4 + 0.5 for i in range(13)]
    model = AutoModelForSequenceClassification.from_pretrained(run.model).eval()
    assert model.config.problem_type == "regression" and model.config.num_labels == 1
    tokens = AutoTokenizer.from_pretrained(run.model)(
        [row["text"] for row in rows(13)], padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        found = model(**tokens).logits[:, 0]
    assert table["prediction"].to_pylist() == pytest.approx(found.tolist(), abs=1e-5)
    for other in (
        small_runs.train_ranks("regression", 2, "optim.max_steps=4", data=data, optim=optim),
        small_runs.train("regression", "optim.max_steps=4", "trainer.packing=false", data=data, optim=optim),
        small_runs.train("regression", "optim.max_steps=4", "trainer.tokens_per_microbatch=20", data=data, optim=optim),
    ):
        assert losses(other)[0] == pytest.approx(losses(run)[0], rel=1e-5)


def test_numbers() -> None:
    assert [number(value) for value in (3, "3.5", "2,5", " 1e2 ")] == [3.0, 3.5, 2.5, 100.0]
    assert [number(value) for value in ("", "good", None, [1], float("nan"), "inf")] == [None] * 6


@pytest.mark.parametrize("lines", ["text;score\ngood;3,5\nbad;-0,25\n", 'text,score\ngood,"3,5"\nbad,"-0,25"\n'])
def test_decimal_commas_of_a_csv_file(tmp_path: Path, tiny_model: Path, lines: str) -> None:
    (tmp_path / "train.csv").write_text(lines)
    data = {"train": str(tmp_path / "train.csv"), "max_length": 16}
    opened = open_data(load_config(write_experiment(tmp_path / "e.yaml", "regression", tiny_model, data)))
    assert opened.table(opened.splits["train"], {row: {"score": 0} for row in range(2)})["gold"] == [3.5, -0.25]


def test_what_is_no_number(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_jsonl(tmp_path / "train.jsonl", [{"text": "a", "score": "1.5"}, {"text": "a", "score": "good"}])
    experiment = tmp_path / "e.yaml"
    content = {"task": "regression", "model": {"name": str(tiny_model)}, "data": {"train": str(path)}}
    experiment.write_text(json.dumps(content))
    assert main(["show", str(experiment)]) == 2
    assert f"{path}, line 2: the score 'good' is not a number; write one, as in 3.5" in capsys.readouterr().err
    write_jsonl(path, [{"text": "a", "score": 1}, {"text": "b", "score": 2}])
    assert main(["train", str(experiment), f"run_dir={tmp_path / 'run'}", "optim.label_smoothing=0.1"]) == 2
    assert "task 'regression' has no classes for optim.label_smoothing" in capsys.readouterr().err
