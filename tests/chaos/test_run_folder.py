"""A run_dir that holds somebody's files, and what a run folder's own names are: nothing else is ever removed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from research.common.errors import UserError
from research.common.files import replace_folder, set_aside, write_atomically
from research.config.component import choose
from research.config.load import load_config
from research.config.schema import Config
from research.tracking.run import Run
from research.training import checkpoint
from research.training.kept_checkpoints import rotate

Command = Callable[..., tuple[int, str]]
FOREIGN = {
    "model/model.safetensors": "pretrained weights",
    "notes.txt": "mine",
    "checkpoints/step-00000001.safetensors": "mine",
    "checkpoints/best.pt": "mine",
    "predictions/test.parquet": "mine",
    "src/.config.yaml.1.tmp": "mine",
    ".model.old/weights": "mine",
    ".main.tex.swp": "mine",
    "config.yaml": "task: classification",
    "provenance.json": "{}",
    ".lock": "",
}


def plant(folder: Path, *names: str) -> dict[str, str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(FOREIGN[name])
    return contents(folder)


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.in_check(2)
@pytest.mark.parametrize("name", [name for name in FOREIGN if name != ".lock"])
def test_folder_with_other_files_is_refused_untouched(name: str, tmp_path: Path, experiment: Path) -> None:
    before = plant(tmp_path / "proj", name)
    with pytest.raises(UserError, match=r"is not empty and no run folder \(it holds .+\): .+ Choose a new folder"):
        Run.open(load_config(experiment, [f"run_dir={tmp_path / 'proj'}"]))
    assert contents(tmp_path / "proj") == before


def test_refusal_is_a_sentence_of_the_command(tmp_path: Path, experiment: Path, command: Command) -> None:
    plant(tmp_path / "proj", "notes.txt", "model/model.safetensors")
    code, shown = command("train", experiment, f"run_dir={tmp_path / 'proj'}")
    assert code == 2 and "it holds model, notes.txt" in shown


def test_empty_folder_and_one_whose_first_start_was_killed_are_taken(tmp_path: Path, experiment: Path) -> None:
    for i, names in enumerate([(), (".lock",), (".lock", "checkpoints/", "predictions/", ".config.yaml.17.tmp")]):
        folder = tmp_path / str(i)
        folder.mkdir()
        for name in names:
            (folder / name).mkdir() if name.endswith("/") else (folder / name).write_text("")
        Run.open(load_config(experiment, [f"run_dir={folder}"])).close()
        assert (folder / "config.yaml").is_file() and not list(folder.glob(".*.tmp"))


def test_only_own_temporary_files_are_removed(finished: Path, experiment: Path) -> None:
    foreign = [
        ".notes.tmp", ".swap.1.tmp", "checkpoints/.epoch-1.5.tmp", "predictions/deep/.test.parquet.5.tmp",
        "model/.config.yaml.5.tmp", ".config.yaml.tmp", "tools/.step-00000001.5.tmp",
    ]  # fmt: skip
    own = [
        ".config.yaml.5.tmp", ".result.json.99999.tmp", "checkpoints/.step-00000003.7.tmp", "wandb/.run_id.3.tmp",
        "predictions/.validation-00000003.parquet.7.tmp",
    ]  # fmt: skip
    for name in [*foreign, *own]:
        (finished / name).parent.mkdir(parents=True, exist_ok=True)
        (finished / name).write_text("")
    Run.open(load_config(experiment, [f"run_dir={finished}"])).close()
    assert [name for name in foreign if not (finished / name).exists()] == []
    assert [name for name in own if (finished / name).exists()] == []


@pytest.mark.parametrize("key", ["model.name", "data.train", "data.test"])
def test_inputs_inside_the_run_folder_are_refused(key: str, tmp_path: Path, finished: Path) -> None:
    config = Config(task=choose("task", "classification"), run_dir=str(finished))
    config.model.name = config.data.train = config.data.test = str(tmp_path)
    part, _, name = key.partition(".")
    inside = finished / ("model" if part == "model" else "predictions/test.parquet")
    setattr(getattr(config, part), name, str(inside))
    before = inside.stat().st_mtime_ns
    with pytest.raises(UserError, match=rf"{key}=.+ lies in run_dir="):
        Run.open(config)
    assert inside.stat().st_mtime_ns == before


def test_rotation_removes_checkpoints_alone(tmp_path: Path) -> None:
    foreign = ["step-final-x.safetensors", "step-00000001-mine.safetensors", "best.safetensors", "step-1-a.safetensors",
               "step-00000000-0123456789abcdef.safetensors.bak"]  # fmt: skip
    for name in foreign:
        (tmp_path / name).write_text("mine")
    for step in (1, 2, 3):
        path = checkpoint.save(tmp_path, step, {}, {})
        rotate(tmp_path, path, keep=1, needed=())
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*foreign, path.name])


def test_replacing_a_folder_removes_only_it_and_what_a_killed_replacement_left(tmp_path: Path) -> None:
    kept = [".model.new", ".model.old", ".model.notes.old", "model.old"]
    for name in [*kept, ".model.17.new", ".model.17.old"]:
        (tmp_path / name).mkdir()
    replace_folder(tmp_path / "model", lambda new: (new / "a").touch())
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*kept, "model"])


@pytest.mark.parametrize("error", [OSError(28, "No space"), Exception("No space left on device (os error 28)")])
def test_full_disk_is_an_outside_fault_however_it_is_reported(error: Exception, tmp_path: Path) -> None:
    from research.common.errors import is_outside_fault

    def fill(folder: Path) -> None:
        (folder / "half").touch()
        raise error

    with pytest.raises(UserError, match="could not be written: No space") as raised:
        replace_folder(tmp_path / "model", fill)
    assert is_outside_fault(raised.value) and list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="could not be written: No space"), write_atomically(tmp_path / "file"):
        raise error
    with pytest.raises(ValueError, match="no fault of the disk"), write_atomically(tmp_path / "file"):
        raise ValueError("no fault of the disk")


def test_damaged_files_are_set_aside_under_free_names(tmp_path: Path) -> None:
    for i in (1, 2):
        (tmp_path / "a.json").write_text(str(i))
        assert set_aside(tmp_path / "a.json").name == f"a.json.damaged-{i}"
    assert (tmp_path / "a.json.damaged-1").read_text() == "1" and not os.path.exists(tmp_path / "a.json")
