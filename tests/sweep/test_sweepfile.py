"""The sweep file: its ways of writing keys, what it refuses, and that every shipped one is sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from research.common.errors import UserError
from research.config.load import load_config
from research.config.tree import to_dict
from research.metrics import metric_of
from research.metrics.score import Score
from research.sweep.space import check_space
from research.sweep.study import direction
from research.sweep.sweepfile import (
    Parameter,
    base_config,
    is_sweep,
    load_sweep,
    to_yaml,
    trial_config,
    with_values,
)
from research.sweep.worker import searched_score, shared_config

FOLDER = Path(__file__).parent.parent.parent / "sweeps"
SWEEPS = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.yaml"))
LEAST: dict[str, Any] = {
    "experiment": "mine.yaml",
    "space": {"optim.lr": {"low": 1e-5, "high": 1e-3, "log": True}},
    "budget": {"trials": 4},
}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    text = "task: sentiment\nmodel: {name: a/b}\ndata: {train: a.jsonl, validation: b.jsonl}\n"
    (tmp_path / "mine.yaml").write_text(text)

    def write(**keys: Any) -> Path:
        path = tmp_path / "search.yaml"
        path.write_text(yaml.safe_dump({**LEAST, **keys}))
        return path

    return write


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_sweep(path, overrides)
    return str(caught.value)


def test_their_number() -> None:
    searches_of_lr = ["squad_lr_warmup.yaml", "sst2_lr_warmup.yaml", "wnut17_lr_warmup.yaml"]
    assert sorted(SWEEPS) == sorted(["methods.yaml", "quickstart.yaml", "sst2_lora.yaml", *searches_of_lr])


@pytest.mark.in_check(1)
@pytest.mark.parametrize("name", SWEEPS)
def test_shipped_sweeps_are_sound(name: str) -> None:
    sweep = load_sweep(FOLDER / name)
    base = shared_config(sweep)
    check_space(sweep, base)
    other = {"sst2_lora.yaml": "adapter.rank", "methods.yaml": "methods.r_drop.alpha"}.get(name, "optim.warmup_ratio")
    assert {"optim.lr", other} <= set(sweep.space)
    assert base.trainer.monitor in ("accuracy", "f1")
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert f"research sweep sweeps/{name}" in text and "easured" in text
    assert is_sweep(FOLDER / name) and not is_sweep(sweep.experiment)


def test_dotted_and_nested_keys_are_the_same(write: Write) -> None:
    nested = write(
        space={"optim": {"lr": {"low": 1e-5, "high": 1e-3, "log": True}, "epochs": {"choices": [1, 2]}}},
        settings={"optim": {"batch_size": 8}, "data.max_length": 64, "data": {"columns": {"text": "body"}}},
        enqueue=[{"optim": {"lr": 1e-4}}],
    )
    sweep = load_sweep(nested)
    assert sweep.space == {
        "optim.lr": Parameter(low=1e-5, high=1e-3, log=True),
        "optim.epochs": Parameter(choices=[1, 2]),
    }
    assert sweep.settings == {"optim.batch_size": 8, "data.max_length": 64, "data.columns": {"text": "body"}}
    assert sweep.enqueue == [{"optim.lr": 1e-4}]
    base = base_config(sweep)
    assert (base.optim.batch_size, base.data.max_length, base.data.columns) == (8, 64, {"text": "body"})


def test_overrides_reach_every_level(write: Write) -> None:
    path = write()
    sweep = load_sweep(
        path,
        ["space.optim.lr.low=1e-6", "settings.optim.epochs=1", "budget.trials=9", "sampler.name=gp", "seeds=[3, 4]"],
    )
    assert sweep.space["optim.lr"] == Parameter(low=1e-6, high=1e-3, log=True)
    assert sweep.settings == {"optim.epochs": 1}
    assert (sweep.budget.trials, sweep.sampler.name, sweep.seeds) == (9, "gp", [3, 4])


def test_places(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write()
    monkeypatch.chdir("/")
    sweep = load_sweep(path, ["folder=/tmp/here"])
    assert sweep.experiment == str(tmp_path / "mine.yaml") and sweep.name == "search"
    assert sweep.storage.url == "/tmp/here/journal.log"
    monkeypatch.chdir(tmp_path)
    assert load_sweep(path).folder == str(tmp_path / "runs/sweeps/search")
    assert load_sweep(path, ["storage.url=deep/j.log"]).storage.url == str(tmp_path / "deep/j.log")
    assert load_sweep(path, ["storage.url=postgresql://h/d"]).storage.url == "postgresql://h/d"


def test_the_resolved_file_is_the_sweep_again(write: Write, tmp_path: Path) -> None:
    path = write(
        space={"optim.lr": {"low": 1e-5, "high": 1e-3}, "optim.schedule": {"choices": ["linear", "cosine"]}},
        settings={"data": {"labels": ["a", "b"]}},
        folder=str(tmp_path / "folder"),
    )
    sweep = load_sweep(path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "sweep.yaml").write_text(to_yaml(sweep))
    assert is_sweep(tmp_path / "folder")
    assert load_sweep(tmp_path / "folder") == sweep


def test_a_trial_is_the_experiment_with_its_values(write: Write, tmp_path: Path) -> None:
    sweep = load_sweep(write(folder=str(tmp_path / "s")))
    base = base_config(sweep)
    config = trial_config(sweep, base, 12, {"optim.lr": 2e-4}, seed=5)
    assert (config.optim.lr, config.seed) == (2e-4, 5)
    assert config.run_dir == str(tmp_path / "s/trials/0012/seed5")
    assert (config.wandb.group, config.wandb.name) == ("search", "search/0012/seed5")
    same = load_config(tmp_path / "mine.yaml", ["optim.lr=2e-4", "seed=5", f"run_dir={config.run_dir}"])
    same.wandb = config.wandb
    assert to_dict(config) == to_dict(same)
    with pytest.raises(UserError, match=r"trial 3: .*optim.lr=-1"):
        with_values(base, {"optim.lr": -1.0}, "trial 3")


@pytest.mark.in_check(4)
@pytest.mark.parametrize(
    ("keys", "overrides", "fragments"),
    [
        (
            {"space": {"optim.lrr": {"low": 1, "high": 2}}},
            [],
            ("search.yaml, space", "'optim.lrr'", "Did you mean optim.lr?"),
        ),
        ({"space": {"optim": {"lrr": {"low": 1, "high": 2}}}}, [], ("'optim.lrr'", "Did you mean optim.lr?")),
        (
            {"space": {"optim.lr": {"lwo": 1, "high": 2}}},
            [],
            ("unknown key 'space.optim.lr.lwo'", "space.optim.lr.low"),
        ),
        ({"space": {"optim.lr": 3}}, [], ("space.optim.lr is 3", "{low: ..., high: ...}")),
        ({"space": {}}, [], ("space={} must name at least one key",)),
        ({"spcae": {}}, [], ("unknown key 'spcae'", "Did you mean space?")),
        ({"settings": {"optim": {"epoch": 1}}}, [], ("search.yaml, settings", "Did you mean optim.epochs?")),
        ({"enqueue": [{"optim.lrr": 1}]}, [], ("search.yaml, enqueue", "'optim.lrr'")),
        ({"sampler": {"name": "bayes"}}, [], ("sampler.name", "tpe")),
        ({"budget": {"trials": 0}}, [], ("budget.trials=0 must be above 0",)),
        ({"budget": {"trials": "many"}}, [], ("budget.trials", "many")),
        ({"budget": {}}, [], ("must say trials, hours or device_hours",)),
        ({"seeds": [1, 1]}, [], ("seeds=[1, 1] names a seed twice",)),
        ({"seeds": []}, [], ("must name at least one seed",)),
        ({"seeds": [0, 1, 2], "pruner": {"name": "wilcoxon"}}, [], ("are too few for pruner.name=wilcoxon",)),
        ({"storage": {"heartbeat_seconds": 60}}, [], ("at least twice storage.heartbeat_seconds",)),
        ({"sampler": {"name": "grid"}, "enqueue": [{"optim.lr": 1e-4}]}, [], ("goes without sampler.name=grid",)),
        ({}, ["budget.trials"], ("'budget.trials' is not of the form key=value",)),
        ({}, ["budget.trails=3"], ("argument 'budget.trails'", "Did you mean budget.trials?")),
        ({}, ["space.optim.lr.low=much"], ("argument 'space.optim.lr.low'", "much")),
    ],
)
def test_mistakes_are_reported_with_their_place(
    write: Write, keys: dict[str, Any], overrides: list[str], fragments: tuple[str, ...]
) -> None:
    said = refused(write(**keys), *overrides)
    for fragment in fragments:
        assert fragment in said


def test_missing_files(write: Write, tmp_path: Path) -> None:
    write()
    said = refused(tmp_path / "serach.yaml")
    assert "There is no sweep file" in said and "search.yaml" in said
    with pytest.raises(UserError, match=r"no experiment file .*other\.yaml"):
        base_config(load_sweep(write(experiment="other.yaml")))
    (tmp_path / "mine.yaml").write_text("task: sentiment\nmodel: {name: a/b}\ndata: {train: a.jsonl}\n")
    with pytest.raises(UserError, match=r"names no data\.validation"):
        base_config(load_sweep(write()))


def test_direction_is_that_of_the_metric(write: Write) -> None:
    metric = metric_of({"scorer": "classification", "labels": ["a", "b"]})

    def searched(**keys: str) -> Score:
        sweep = load_sweep(write(**keys))
        return searched_score(sweep, shared_config(sweep), metric)

    assert (searched().name, direction(searched())) == ("accuracy", "maximize")
    for name in ("loss", "calibration_error"):
        score = searched(metric=name, direction="minimize")
        assert (score.name, direction(score)) == (name, "minimize")
        with pytest.raises(UserError, match=f"maximize does not go with metric={name}: a smaller value is better"):
            searched(metric=name, direction="maximize")
    with pytest.raises(UserError, match="direction=minimize does not go with metric=accuracy"):
        searched(direction="minimize")
