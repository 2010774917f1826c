"""`research prepare` leaves caches from which an experiment starts without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from research.cli import main
from research.config.load import load_config
from research.inference.prepare import of_hub
from tests.attempts import attempt

pytestmark = pytest.mark.process


def test_everything_is_in_the_caches(
    experiments: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cache = {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
    paths = [str(experiments[task]) for task in ("sentiment", "ner")]
    code, said = attempt(["prepare", *paths, "data.max_length=32"], tmp_path / "log", cache)
    assert code == 0, said
    model = json.loads(Path(paths[0]).read_text())["model"]["name"]
    for path in paths:
        assert f"{path}: {model}, 40 train, 21 validation, 13 test" in said
    assert "tokenised data: " in said and "Compute nodes must see these folders" in said
    code, said = attempt(["prepare", *paths, "data.max_length=32"], tmp_path / "log", cache)
    assert code == 0 and "Tokenising" not in said


def test_mistakes(experiments: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "optim.lr=1e-3"]) == 2
    assert "needs at least one experiment" in capsys.readouterr().err
    assert main(["prepare", str(experiments["ner"]), "data.test=nowhere.conll"]) == 2
    assert "nowhere.conll: no such file" in capsys.readouterr().err


def test_what_comes_from_the_hub(experiments: dict[str, Path]) -> None:
    path = experiments["sentiment"]
    assert not of_hub(load_config(path))
    assert of_hub(load_config(path, ["model.name=google-bert/bert-base-uncased"]))
    assert of_hub(load_config(path, ["data.name=stanfordnlp/sst2", "data.train=train"]))
