"""Files swapped, damaged or removed under an unfinished run: it says so, or ends with the bits of an untouched run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from research.tracking.run import Run
from research.training import checkpoint
from research.training.resume import hub_commit
from tests.conftest import make_tiny_model

Command = Callable[..., tuple[int, str]]


def unfinish(run: Path, step: int) -> None:
    """Make the run one that was killed just after the checkpoint of `step`."""
    (run / "result.json").unlink()
    shutil.rmtree(run / "model")
    for path in checkpoint.files(run / "checkpoints"):
        if checkpoint.step_of(path) > step:
            path.unlink()


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.fixture
def swapped(experiment: Path, tmp_path: Path, tiny_model: Path) -> Path:
    """The same experiment on a copy of its model, to be changed."""
    shutil.copytree(experiment.parent, tmp_path / "exp")
    shutil.copytree(tiny_model, tmp_path / "exp" / "model")
    path = tmp_path / "exp" / "exp.yaml"
    path.write_text(path.read_text().replace(str(tiny_model), "model"))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("what", ["tokenizer", "pretrained"])
def test_swapped_model_or_tokenizer_is_refused(what: str, swapped: Path, tmp_path: Path, command: Command) -> None:
    run, model = tmp_path / "run", swapped.parent / "model"
    assert command("train", swapped, f"run_dir={run}")[0] == 0
    unfinish(run, 4)
    if what == "tokenizer":
        path = model / "tokenizer.json"
        content = json.loads(path.read_text())
        vocabulary = content["model"]["vocab"]
        vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]
        path.write_text(json.dumps(content))
    else:
        make_tiny_model(tmp_path / "other", initializer_range=0.03)
        shutil.copy(tmp_path / "other" / "model.safetensors", model)
    code, shown = command("train", swapped, f"run_dir={run}")
    assert code == 2 and "it is of another experiment" in shown and f"{what}: " in shown


def test_hub_model_is_known_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--some--bert", "0123456789abcdef0123456789abcdef01234567"
    for name, content in {"refs/main": commit, f"snapshots/{commit}/config.json": "{}"}.items():
        (repository / name).parent.mkdir(parents=True)
        (repository / name).write_text(content)
    assert hub_commit("some/bert", None) == hub_commit("some/bert", commit) == commit
    assert hub_commit("some/bert", "f" * 40) is hub_commit("other/bert", None) is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["removed", "cut short", "another file"])
def test_damaged_best_predictions_are_made_again(
    kind: str, finished: Path, trained: Path, experiment: Path, command: Command
) -> None:
    unfinish(finished, 8)
    rows = finished / "predictions" / "validation.parquet"
    match kind:
        case "removed":
            rows.unlink()
        case "cut short":
            rows.write_bytes(rows.read_bytes()[:-9])
        case _:
            damage(rows)
    code, shown = command("train", experiment, f"run_dir={finished}")
    assert code == 0 and "validation.parquet is missing or damaged: the best checkpoint is evaluated again" in shown
    assert rows.read_bytes() == (trained / "predictions" / "validation.parquet").read_bytes()
    untouched, again = (Run.read(folder).result or {} for folder in (trained, finished))
    assert again["files"] == untouched["files"] and again["metrics"] == untouched["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["damaged", "removed"])
def test_training_goes_back_before_a_damaged_best_checkpoint(
    kind: str, finished: Path, trained: Path, experiment: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    best = (Run.read(finished).result or {})["best_step"]
    assert best == 4, "the best is not the last: it has to be returned to"
    unfinish(finished, 8)
    [path] = [path for path in checkpoint.files(finished / "checkpoints") if checkpoint.step_of(path) == best]
    damage(path) if kind == "damaged" else path.unlink()
    code, shown = command("train", experiment, f"run_dir={finished}")
    assert code == 0, shown
    assert "The best checkpoint (step 4) is missing" in caplog.text and "goes back before it" in caplog.text
    untouched, again = (Run.read(folder).result or {} for folder in (trained, finished))
    assert again["files"] == untouched["files"] and again["metrics"] == untouched["metrics"]
    rows = [row for row in Run.read(finished).metrics() if "train/loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 9))
