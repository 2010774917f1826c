"""A user's task by the path of its file: trained, evaluated and used like ours; its cache follows its code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from research.cli import main
from research.config.load import load_config
from research.tracking.run import Run
from tests.conftest import copied, write_experiment, write_jsonl

TASK = '''"""Sentiment with a prefix and labels that a helper may turn round."""
from dataclasses import dataclass

from research.config.component import key
from research.tasks.classification import Data as Classification
from research.tasks.classification import Module
from turning import TURNED

__all__ = ["Data", "Module"]


@dataclass
class Keys:
    prefix: str = key("", "put before each text")


class Data(Classification):
    def encode(self, rows):
        encoded = super().encode({**rows, "text": [self.config.task.prefix + text for text in rows["text"]]})
        if TURNED:
            encoded["label"] = [[1 - label for label in row] for row in encoded["label"]]
        return encoded
'''
LABELS = """
import sys
from research.config.load import load_config
from research.training.build import open_data
store = open_data(load_config(sys.argv[1])).stores["train"]
print([int(row[0]) for row in store.columns["label"].rows(range(4))])
"""


@pytest.fixture
def experiment(tmp_path: Path, tiny_model: Path) -> Path:
    rows = [{"text": f"{word} film", "label": word} for word in ("good", "bad") * 12]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    (tmp_path / "my_task.py").write_text(TASK)
    (tmp_path / "turning.py").write_text("TURNED = False\n")
    data: dict[str, Any] = {"train": "rows.jsonl", "max_length": 16}
    data |= {split: Path(copied(tmp_path / "rows.jsonl", split)).name for split in ("validation", "test")}
    task, optim = {"name": "./my_task.py", "prefix": "the "}, {"epochs": 8, "batch_size": 8, "lr": 5e-3}
    return write_experiment(tmp_path / "mine.yaml", task, tiny_model, data, optim=optim)


@pytest.mark.slow
def test_a_users_task_is_trained_evaluated_and_used(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    folder = experiment.parent
    assert load_config(experiment).task.name == str(folder / "my_task.py")
    assert main(["train", str(experiment)]) == 0
    run = Run.read(folder / "run")
    assert run.result is not None and run.result["metrics"]["test"]["accuracy"] == 1.0
    assert run.config.task.prefix == "the "
    assert main(["evaluate", str(run.path)]) == 0
    write_jsonl(folder / "new.jsonl", [{"text": "good film"}, {"text": "bad film"}])
    assert (
        main(["predict", str(run.path), "--input", str(folder / "new.jsonl"), "--output", str(folder / "out.jsonl")])
        == 0
    )
    predicted = [json.loads(line)["prediction"] for line in (folder / "out.jsonl").read_text().splitlines()]
    assert predicted == ["good", "bad"]


@pytest.mark.slow
def test_a_change_in_code_that_encode_imports_encodes_the_data_again(experiment: Path) -> None:
    def labels() -> str:
        environment = {**os.environ, "HF_DATASETS_CACHE": str(experiment.parent / "cache")}
        command = [sys.executable, "-c", LABELS, str(experiment)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert labels() == "[1, 0, 1, 0]"
    (experiment.parent / "turning.py").write_text("TURNED = True\n")
    assert labels() == "[0, 1, 0, 1]"
    (experiment.parent / "turning.py").write_text("TURNED = False\n")
    assert labels() == "[1, 0, 1, 0]"
