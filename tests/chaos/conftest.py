"""A small finished run, trained once in this process, of which each test gets a copy to damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from research.config.load import load_config
from research.training.run import train
from tests.conftest import write_jsonl

LABELS = ("[/b] bad", "[red]good[/red] :smile:")  # console markup and an emoji, if it were read as such


@pytest.fixture(scope="session")
def experiment(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of a classification of 16 texts in 8 steps."""
    folder = tmp_path_factory.mktemp("chaos")
    rows = [{"text": f"the film was {'good' if i % 2 else 'bad'} {i}", "label": LABELS[i % 2]} for i in range(16)]
    for split in ("train", "validation", "test"):
        write_jsonl(folder / f"{split}.jsonl", rows)
    (folder / "exp.yaml").write_text(
        f"task: classification\nmodel: {{name: {tiny_model}}}\nwandb: {{mode: disabled}}\n"
        "data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl, max_length: 32}\n"
        "optim: {batch_size: 4, epochs: 2, lr: 1e-3}\ntrainer: {log_every_steps: 1, keep_checkpoints: all}\n"
    )
    return folder / "exp.yaml"


@pytest.fixture(scope="session")
def trained(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder, not to be changed."""
    run_dir = tmp_path_factory.mktemp("runs") / "[b]run[/x]"
    assert train(load_config(experiment, [f"run_dir={run_dir}"])) == 0
    return run_dir


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """A copy of a finished run folder."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs `research` in this process. Returns its exit code and all that it wrote; a traceback fails the test."""
    from research.cli import main

    def run(*arguments: object) -> tuple[int, str]:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        shown = "".join(capfd.readouterr())
        assert "Traceback" not in shown
        return code, shown

    return run
