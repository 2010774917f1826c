"""A run folder received from elsewhere or damaged: none of its code runs, and damage never passes for a score."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

import research
from research.common.errors import UserError
from research.inference.evaluate import evaluate
from research.tracking import cost, predictions
from research.tracking.run import Run
from tests.conftest import write_jsonl

Command = Callable[..., tuple[int, str]]


def plant_code(run: Path, marker: Path, model_type: str, name: str) -> None:
    """Let the run's model bring along code of its own that leaves a mark when it runs."""
    code = "from pathlib import Path\nfrom transformers import BertConfig, BertForSequenceClassification\n"
    code += f"Path({str(marker)!r}).touch()\n"
    code += f"class C(BertConfig):\n    model_type = '{model_type}'\n"
    code += "class M(BertForSequenceClassification):\n    config_class = C\n"
    (run / "model" / f"{name}.py").write_text(code)
    path = run / "model" / "config.json"
    auto = {"AutoConfig": f"{name}.C", "AutoModelForSequenceClassification": f"{name}.M"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": model_type, "auto_map": auto}))
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("trust_remote_code: false", "trust_remote_code: true"))
    result = json.loads((run / "result.json").read_text())
    result["files"] = {}  # whoever plants code leaves no hash behind
    (run / "result.json").write_text(json.dumps(result))


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_code_in_a_run_folder_runs_only_when_the_command_asks(
    verb: str, finished: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    marker = tmp_path / "executed"
    texts = write_jsonl(tmp_path / "texts.jsonl", [{"text": "a good film"}])
    rest = ["--input", texts, "--output", tmp_path / "out.jsonl"] if verb == "predict" else []
    plant_code(finished, marker, "planted", f"first_{verb}")
    code, shown = command(verb, finished, *rest)
    assert code == 2 and "brings Python code of its own" in shown and "--trust-remote-code" in shown
    plant_code(finished, marker, "bert", f"second_{verb}")
    code, shown = command(verb, finished, *rest)
    assert code == 0, shown  # by the library's own BERT
    assert not marker.exists()
    code, shown = command(verb, finished, *rest, "--trust-remote-code")
    assert code == 0, shown
    assert marker.exists()


@pytest.mark.slow
def test_from_python_code_in_a_run_folder_runs_only_when_load_is_told_to(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    marker = tmp_path / "executed"
    plant_code(finished, marker, "planted", "first_from_python")
    for use in (lambda run: run.predict(["a good film"]), lambda run: run.evaluate("validation")):
        with pytest.raises(UserError, match=r"brings Python code of its own.*trust_remote_code=True"):
            use(research.load(finished))
    plant_code(finished, marker, "bert", "second_from_python")
    assert len(research.load(finished).predict(["a good film"])) == 1  # by the library's own BERT
    assert not marker.exists()
    assert len(research.load(finished, trust_remote_code=True).predict(["a good film"])) == 1
    assert marker.exists()


@pytest.mark.slow
@pytest.mark.parametrize("section", ["task", "adapter", "methods", "callbacks"])
def test_components_that_a_stored_config_names_are_code_too(
    section: str, finished: Path, experiment: Path, tmp_path: Path, command: Command
) -> None:
    """Reading a user's component executes parts of it: its keys, when a config is read, all of it, when it is used."""
    marker, file = tmp_path / "executed", tmp_path / f"planted_{section}.py"
    mark = f"open({str(marker)!r}, 'w')"
    file.write_text(
        f"from dataclasses import dataclass\nfrom research.tasks.classification import *\n{mark}\nx = {mark}\n"
        "@dataclass\nclass Keys:\n    a: int = 1 if x else 0\nclass Data: pass\nclass Module: pass\n"
        "class Adapter: pass\nclass Method: pass\nclass Callback: pass\n"
    )
    path = finished / "config.yaml"
    content = yaml.safe_load(path.read_text())
    own = {"name": str(file)}
    content[section] = own if section in ("task", "adapter") else {"planted": own}
    path.write_text(yaml.safe_dump(content))
    report = ["--output", tmp_path / "paper"]
    for arguments in (["evaluate", finished], ["sync", finished], ["compare", finished, "--against", finished]):
        command(*arguments)
    assert "names Python code to run" in command("evaluate", finished)[1]
    command("report", finished, *report)
    command("train", experiment, f"run_dir={finished}")
    assert not marker.exists()
    with suppress(Exception):  # what is planted is no real component
        command("evaluate", finished, "--trust-remote-code")
    assert marker.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_changed_model_is_refused_and_predictions_stay(name: str, finished: Path, command: Command) -> None:
    path, rows = finished / "model" / name, finished / "predictions" / "test.parquet"
    content, before = bytearray(path.read_bytes()), rows.read_bytes()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    code, shown = command("evaluate", finished)
    assert code == 2 and f"model/{name} is missing or not the file that training wrote" in shown
    path.unlink()
    assert command("evaluate", finished)[0] == 2
    assert rows.read_bytes() == before


def test_evaluation_with_other_scores_leaves_the_recorded_predictions(
    finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = finished / "predictions" / "test.parquet"
    before = rows.read_bytes()
    path = finished / "result.json"
    result = json.loads(path.read_text())
    genuine = result["metrics"]["test"]["accuracy"]
    result["metrics"]["test"]["accuracy"] = genuine / 2
    path.write_text(json.dumps(result))
    rows.unlink()
    assert evaluate(Run.read(finished), "test")["accuracy"] == genuine
    assert f"accuracy {genuine / 2:.4f} -> {genuine:.4f}" in caplog.text and not rows.exists()
    result["metrics"]["test"]["accuracy"] = genuine
    path.write_text(json.dumps(result))
    evaluate(Run.read(finished), "test")
    assert rows.read_bytes() == before, "missing predictions come back as they were"


@pytest.mark.slow
def test_each_evaluation_is_noted(finished: Path) -> None:
    scores = [evaluate(Run.read(finished), split) for split in ("test", "validation", "train")]
    noted = [json.loads(line) for line in (finished / "evaluations.jsonl").read_text().splitlines()]
    assert [row["split"] for row in noted] == ["test", "validation", "train"]
    assert [row["scores"] for row in noted] == scores
    assert predictions.score(predictions.read(finished / "predictions" / "train.parquet"))["accuracy"] > 0


DAMAGE = {
    "empty": b"", "cut short": b'{"task": "classif', "a list": b"[]", "a number": b"1", "not UTF-8": b"\xff\xfe\x00",
    "nested": b"[" * 100_000,
}  # fmt: skip


@pytest.mark.in_check(4)
@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", ["config.yaml", "result.json", "provenance.json"])
def test_damaged_records_are_one_sentence_with_the_file(name: str, kind: str, finished: Path, command: Command) -> None:
    (finished / name).write_bytes(DAMAGE[kind])
    code, shown = command("evaluate", finished)
    assert code == 2 and f"{name} is damaged" in shown, shown
    assert len(shown) < 600


@pytest.mark.slow
def test_damage_to_what_is_not_needed_is_set_aside(
    finished: Path, experiment: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    reference = (finished / "model" / "model.safetensors").read_bytes()
    (finished / "result.json").unlink()
    for name in ("provenance.json", "cost.json"):
        (finished / name).write_bytes(b"{")
    metrics = finished / "metrics.jsonl"
    good = metrics.read_bytes().splitlines(keepends=True)
    metrics.write_bytes(
        good[0] + b'{"train/loss": 1}\n[1]\n\xff\xff\n{"step": "a"}\n{"step": 2, "x": []}\n' + b"".join(good[1:])
    )
    (finished / "checkpoints" / "step-final-x.safetensors").write_bytes(b"mine")
    code, shown = command("train", experiment, f"run_dir={finished}")
    assert code == 0, shown
    assert (
        (finished / "provenance.json.damaged-1").read_bytes() == (finished / "cost.json.damaged-1").read_bytes() == b"{"
    )
    assert "has 5 damaged lines" in caplog.text
    assert (finished / "checkpoints" / "step-final-x.safetensors").read_bytes() == b"mine"
    assert (finished / "model" / "model.safetensors").read_bytes() == reference
    assert [row["step"] for row in Run.read(finished).metrics() if "train/loss" in row] == list(range(1, 9))


def test_cost_of_another_shape_is_set_aside(tmp_path: Path) -> None:
    for content in (b"", b"{}x", b'[{"wall_seconds": 1}]', b"3", b'["a"]', b'{"a": 1}'):
        (tmp_path / "cost.json").write_bytes(content)
        assert cost.read(Run(tmp_path)) == []
        assert not (tmp_path / "cost.json").exists()


def test_result_without_its_parts_names_them(finished: Path) -> None:
    (finished / "result.json").write_text('{"task": "classification"}')
    with pytest.raises(UserError, match=r"result\.json is damaged: it lacks learned, metrics\."):
        evaluate(Run.read(finished), "test")


def test_read_only_run_can_be_evaluated(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.open", _refuse_appending(open))
    assert evaluate(Run.read(finished), "test")["accuracy"] >= 0


def _refuse_appending(genuine: Callable[..., object]) -> Callable[..., object]:
    def opened(file: object, mode: str = "r", *rest: object, **more: object) -> object:
        if "a" in mode and str(file).endswith("evaluations.jsonl"):
            raise OSError(30, os.strerror(30))
        return genuine(file, mode, *rest, **more)

    return opened


def test_markup_in_labels_and_paths_is_shown_as_it_is(trained: Path, finished: Path, command: Command) -> None:
    code, shown = command("evaluate", trained)
    assert code == 0 and "[/b] bad" in shown and "[red]good[/red] :smile:" in shown
    (trained / "evaluations.jsonl").unlink()


def test_exported_tokenizer_is_the_loaded_one(finished: Path, tiny_model: Path) -> None:
    loaded, exported = (
        json.loads((folder / "tokenizer.json").read_text()) for folder in (tiny_model, finished / "model")
    )
    assert exported == loaded and exported["truncation"] is None


@pytest.mark.slow
def test_modes_follow_the_umask(finished: Path, experiment: Path, tmp_path: Path, command: Command) -> None:
    before = os.umask(0o002)
    try:
        assert command("train", experiment, f"run_dir={tmp_path / 'shared'}")[0] == 0
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "shared").rglob("*") if path.is_file()}
    assert "model.safetensors" in modes and any(name.startswith("step-") for name in modes)
    assert set(modes.values()) == {0o664}, modes
    shutil.rmtree(tmp_path / "shared")
