"""Values of the command line and of YAML arrive as they were written, or are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from research.common.errors import UserError
from research.config.load import from_dict, load_config
from research.config.tree import to_dict
from research.sweep.sweepfile import base_config, load_sweep, trial_config

LEAST = "task: ner\nmodel: {name: tiny}\ndata: {train: train.jsonl, validation: train.jsonl}\n"


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text(LEAST)
    return tmp_path / "mine.yaml"


@pytest.mark.in_check(2)
@pytest.mark.parametrize("text", ["runs/x #1", "007", "yes", "1e5", "a: b", "{x}", "[1, 2]", "~", "'q'", "a=b", "x: #"])
def test_text_keys_take_arguments_literally(experiment: Path, text: str) -> None:
    assert load_config(experiment, [f"wandb.name={text}"]).wandb.name == text
    assert load_config(experiment, [f"data.columns.tokens={text}"]).data.columns == {"tokens": text}


def test_null_unsets_a_text_key(experiment: Path) -> None:
    given = ["wandb.name=a", "wandb.name=null", "data.validation="]
    config = load_config(experiment, given)
    assert config.wandb.name is None and config.data.validation is None


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optim.lr=3e-5", 3e-5), ("optim.lr=1E-4", 1e-4), ("optim.lr=.5", 0.5), ("optim.lr=0.5", 0.5),
        ("optim.lr=1_0.5", 10.5), ("optim.lr=+2", 2.0), ("optim.lr=0.0001", 1e-4),
    ],
)  # fmt: skip
def test_decimal_numbers_are_taken(experiment: Path, override: str, value: float) -> None:
    assert load_config(experiment, [override]).optim.lr == value


@pytest.mark.parametrize(
    "override",
    ["seed=010", "seed=089", "optim.max_steps=0100", "optim.lr=00.5", "seed=0x10", "seed=0b1", "seed=1:30", "seed=-01",
     "data.labels=[01, 02]", "optim.class_weights={010: 2.0}"],
)  # fmt: skip
def test_numbers_that_yaml_misreads_are_refused(experiment: Path, override: str) -> None:
    with pytest.raises(UserError, match="no plain decimal number"):
        load_config(experiment, [override])
    key, _, value = override.partition("=")
    section, _, name = key.rpartition(".")
    text = f"{section}: {{{name}: {value}}}\n" if section else f"{name}: {value}\n"
    experiment.write_text("task: ner\nmodel: {name: tiny}\n" + text)
    with pytest.raises(UserError, match=r"mine\.yaml \(line 3\): .* is no plain decimal number"):
        load_config(experiment)


def test_quoted_numbers_are_text_in_yaml(experiment: Path) -> None:
    experiment.write_text(LEAST + "wandb: {name: '007'}\n")
    assert load_config(experiment).wandb.name == "007"


@pytest.mark.parametrize("override", ["api_key=hunter2", "wandb.key=hunter2", "adapter.token=hunter2"])
def test_the_value_of_an_unknown_key_is_not_echoed(experiment: Path, override: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(experiment, [override])
    assert override.partition("=")[0] in str(caught.value) and "hunter2" not in str(caught.value)


def test_a_stored_config_with_an_interpolation_is_refused(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    stored = to_dict(load_config(experiment))
    stored["wandb"]["name"] = "${oc.env:SECRET}"
    with pytest.raises(UserError, match=r"wandb\.name is") as caught:
        from_dict(stored)
    assert "hunter2" not in str(caught.value)


@pytest.mark.in_check(1)
@pytest.mark.parametrize("name", ["my study: lr/α #1", "a, b", "{x}", "007", "yes", "'q'"])
def test_any_folder_name_works_for_a_sweep(experiment: Path, name: str) -> None:
    sweep = experiment.with_name("sweep.yaml")
    sweep.write_text("experiment: mine.yaml\nspace: {optim.lr: {low: 1.0e-5, high: 1.0e-3}}\nbudget: {trials: 1}\n")
    folder = experiment.parent / name
    search = load_sweep(sweep, [f"folder={folder}", f"name={name}"])
    assert (search.name, search.folder) == (name, str(folder))
    base = base_config(search)
    assert base.run_dir == str(folder)
    assert trial_config(search, base, 0, {"optim.lr": 1e-4}, 0).run_dir == str(folder / "trials/0000/seed0")


def test_values_of_a_caller_are_taken_as_they_are(experiment: Path) -> None:
    values = {"optim.lr": 3e-5, "task": "qa", "task.stride": 64, "wandb.tags": ["a"], "run_dir": "x: y"}
    config = load_config(experiment, values=values, given_by="train()")
    assert (config.optim.lr, config.task.name, config.task.stride, config.wandb.tags) == (3e-5, "qa", 64, ["a"])
    assert str(config.run_dir).endswith("/x: y")
    with pytest.raises(UserError, match=r"train\(\): unknown key 'optim\.lrr'. Did you mean optim\.lr\?"):
        load_config(experiment, values={"optim.lrr": 1.0}, given_by="train()")
