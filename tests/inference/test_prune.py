"""`research prune`: it shows first, removes checkpoints of finished runs alone, and a finished run is small anyway."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from research.common.errors import UserError
from research.inference.prune import prune
from research.training import checkpoint
from research.training.kept_checkpoints import remove


def make_run(folder: Path, finished: bool = True, steps: tuple[int, ...] = (2, 4, 6)) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("task: ner\n")
    for step in steps:
        checkpoint.save(folder / "checkpoints", step, {}, {})
    (folder / "checkpoints" / "step-mine.safetensors").write_text("mine")
    if finished:
        (folder / "result.json").write_text(json.dumps({"best_step": 4}))
    return folder


def steps_in(folder: Path) -> list[int]:
    return [checkpoint.step_of(path) for path in checkpoint.files(folder / "checkpoints")]


def test_shows_and_removes_only_when_confirmed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done, going, damaged = (make_run(tmp_path / name, name == "done") for name in ("done", "going", "damaged"))
    (damaged / "result.json").write_text("{")
    assert prune([str(tmp_path)], "best", confirmed=False) == 1  # there is no one to ask
    shown = capsys.readouterr().out
    assert "done: 2 checkpoints, " in shown and "going" not in shown and "nothing was removed: add --yes" in shown
    assert steps_in(done) == [6, 4, 2]
    assert prune([str(tmp_path)], "best", confirmed=True) == 0
    assert steps_in(done) == [4] and steps_in(going) == steps_in(damaged) == [6, 4, 2]
    assert prune([str(done)], "none", confirmed=True) == 0
    assert steps_in(done) == [] and (done / "checkpoints" / "step-mine.safetensors").read_text() == "mine"
    assert prune([str(done)], "none", confirmed=True) == 0
    assert capsys.readouterr().out.endswith("Nothing to remove in 1 run.\n")


@pytest.mark.parametrize(("answer", "left"), [("y", [4]), ("", [6, 4, 2]), ("no", [6, 4, 2])])
def test_asks_in_a_terminal(answer: str, left: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    assert prune([str(run)], "best", confirmed=False) == 0
    assert steps_in(run) == left


def test_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run folder"):
        prune([str(tmp_path)], "best", confirmed=True)


@pytest.mark.parametrize(("keep", "left"), [("none", []), ("best", [4]), ("all", [6, 4, 2])])
def test_what_a_finished_run_keeps(keep: str, left: list[int], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    remove(run / "checkpoints", keep, needed=[4])
    assert steps_in(run) == left and len(os.listdir(run / "checkpoints")) == len(left) + 1
