"""Runs build on runs: `model.name` takes a run folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from safetensors.torch import load_file

from research.cli import main
from tests.small_runs import SmallRuns


@pytest.mark.slow
def test_a_classifier_begins_with_an_encoder_adapted_to_its_texts(small_runs: SmallRuns) -> None:
    adapted = small_runs.train("mlm")
    second = small_runs.train("sentiment", f"model.name={adapted.path}", adapter="head")
    before, after, pretrained = (
        load_file(folder / "model.safetensors") for folder in (adapted.model, second.model, small_runs.model)
    )
    shared = [name for name in before if "embeddings" in name or "encoder" in name]
    assert shared and all(bool((before[name] == after[name]).all()) for name in shared)
    assert any(bool((before[name] != pretrained[name.removeprefix("bert.")]).any()) for name in shared)
    assert second.provenance["parent"]["run"] == str(adapted.path)


@pytest.mark.slow
def test_a_run_begins_with_the_model_of_another(
    small_runs: SmallRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = small_runs.train("ner")
    second = small_runs.train("sentiment", f"model.name={first.path}", adapter="head")
    before, after = (load_file(run.model / "model.safetensors") for run in (first, second))
    shared = [name for name in before if "embeddings" in name or "encoder" in name]
    assert shared and all(bool((before[name] == after[name]).all()) for name in shared)
    result = (first.path / "result.json").read_bytes()
    assert second.provenance["parent"] == {
        "run": str(first.path), "result_sha256": hashlib.sha256(result).hexdigest(),
    }  # fmt: skip
    assert "parent" not in first.provenance
    (first.path / "result.json").unlink()
    arguments, _ = small_runs.arguments("sentiment", [f"model.name={first.path}"], {})
    assert main(arguments) == 2
    assert "the run is not finished, so it has no model" in capsys.readouterr().err
