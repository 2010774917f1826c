"""How an experiment's YAML, the file it extends and overrides meet the schema, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from research.common.errors import UserError
from research.config import component
from research.config.load import from_dict, load_config
from research.config.schema import Config
from research.config.tree import all_keys, differences, result_keys, to_dict
from research.tracking.run import Run

LEAST = "task: ner\nmodel: {name: tiny}\ndata: {train: train.jsonl}\n"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return written


def refused(path: Path | str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


# --- layers


def test_defaults_then_extends_then_yaml_then_overrides(write: Write) -> None:
    write("optim: {lr: 1.0e-3, batch_size: 8, epochs: 7}\nseed: 5\n", "base.yaml")
    path = write(f"extends: base.yaml\n{LEAST}optim: {{lr: 2.0e-3, batch_size: 16}}\n")
    config = load_config(path, ["optim.lr=3e-3", "optim.beta2=0.98"])
    o = config.optim
    assert (o.lr, o.batch_size, o.epochs, config.seed, o.beta2) == (3e-3, 16, 7.0, 5, 0.98)
    assert o.warmup_ratio == Config().optim.warmup_ratio


def test_extends_is_found_from_the_yaml_that_names_it(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("seed: 3\n", "base.yaml")
    path = write("extends: ../base.yaml\n" + LEAST, "deep/mine.yaml")
    monkeypatch.chdir("/")
    assert load_config(path).seed == 3


def test_extends_goes_one_level_deep(write: Write) -> None:
    write("seed: 3\n", "grandparent.yaml")
    write("extends: grandparent.yaml\n", "parent.yaml")
    sentence = refused(write("extends: parent.yaml\n" + LEAST))
    assert "parent.yaml" in sentence and "one level deep" in sentence


def test_a_missing_parent_names_both_files(write: Write) -> None:
    write("seed: 3\n", "base.yaml")
    sentence = refused(write("extends: bas.yaml\n" + LEAST))
    assert "bas.yaml" in sentence and "mine.yaml" in sentence and "Did you mean" in sentence


def test_values_may_contain_equals_signs(write: Write) -> None:
    assert load_config(write(LEAST), ["wandb.name=a=b=c"]).wandb.name == "a=b=c"
    assert load_config(write(LEAST), ["run_dir=/tmp/lr=3"]).run_dir == "/tmp/lr=3"


def test_seed_0_is_a_seed(write: Write) -> None:
    config = load_config(write(LEAST + "seed: 7\nseed_init: 5\n"), ["seed=0", "seed_init=0"])
    assert (config.seed, config.seed_init, config.init_seed, config.order_seed) == (0, 0, 0, 0)
    split = load_config(write(LEAST + "seed: 7\nseed_order: 0\n"))
    assert (split.init_seed, split.order_seed) == (7, 0)


def test_run_dir_follows_the_experiment_and_its_seed(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(LEAST, "experiments/ner/mine.yaml")
    assert load_config(path, ["seed=3"]).run_dir == str(tmp_path / "runs/ner/mine/seed3")
    assert load_config(write(LEAST)).run_dir == str(tmp_path / "runs/mine/seed0")
    assert load_config(write(LEAST), ["run_dir=here"]).run_dir == str(tmp_path / "here")


def test_files_are_found_from_the_working_folder_then_from_the_yaml(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = write("", "mine/train.jsonl")
    path = write(LEAST, "mine/mine.yaml")
    monkeypatch.chdir("/")
    assert load_config(path).data.train == str(beside)
    here = write("", "work/train.jsonl")
    monkeypatch.chdir(here.parent)
    assert load_config(path).data.train == str(here)


def test_splits_of_a_hub_data_set_stay_as_they_are(write: Write) -> None:
    text = "task: ner\nmodel: {name: a/b}\ndata: {name: c/d, train: 'train[:90%]', validation: 'train[90%:]'}\n"
    data = load_config(write(text)).data
    assert (data.name, data.train, data.validation) == ("c/d", "train[:90%]", "train[90%:]")


# --- unknown keys


@pytest.mark.parametrize(
    ("text", "override", "fragments"),
    [
        ("optim: {lrr: 1}\n", None, ("mine.yaml", "'optim.lrr'", "Did you mean optim.lr?", "warmup_ratio")),
        ("sead: 1\n", None, ("mine.yaml", "'sead'", "Did you mean seed?")),
        ("lr: 1\n", None, ("mine.yaml", "'lr'", "Did you mean optim.lr?")),
        ("5: 1\n", None, ("mine.yaml", "unknown key '5'")),
        ("", "optim.batchsize=4", ("argument 'optim.batchsize'", "Did you mean optim.batch_size?")),
        ("", "max_length=4", ("argument 'max_length'", "Did you mean data.max_length?")),
        ("", "extends=base.yaml", ("argument 'extends'", "unknown key 'extends'")),
    ],
)
def test_an_unknown_key_names_the_place_and_the_nearest(
    write: Write, text: str, override: str | None, fragments: tuple[str, ...]
) -> None:
    sentence = refused(write(LEAST + text), *([override] if override else []))
    for fragment in fragments:
        assert fragment in sentence


def test_an_unknown_key_of_the_parent_names_the_parent(write: Write) -> None:
    write("optim: {lrr: 1}\n", "base.yaml")
    assert "base.yaml: unknown key 'optim.lrr'" in refused(write("extends: base.yaml\n" + LEAST))


# --- types and values


@pytest.mark.in_check(3)
@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("optim.lr=fast", ("optim.lr", "'fast'")),
        ("optim.lr=", ("optim.lr",)),
        ("optim.lr=1e-3=4", ("optim.lr", "1e-3=4")),
        ("optim.batch_size=1.5", ("optim.batch_size", "Integer")),
        ("optim.batch_size=true", ("optim.batch_size", "Integer")),
        ("seed=1.0", ("seed", "Integer")),
        ("optim.schedule=lineer", ("optim.schedule", "'lineer'", "linear", "cosine", "constant")),
        ("trainer.precision=fp8", ("trainer.precision", "fp32", "bf16", "fp16")),
        ("trainer.packing=maybe", ("trainer.packing", "'maybe'", "auto")),
        ("trainer.devices=two", ("trainer.devices", "'two'", "auto")),
        ("optim=3", ("'optim' holds keys", "lr")),
        ("data.columns=text", ("data.columns",)),
        ("optim.class_weights={good: heavy}", ("optim.class_weights", "heavy")),
    ],
)
def test_a_wrong_type_names_the_key_and_what_is_allowed(
    write: Write, override: str, fragments: tuple[str, ...]
) -> None:
    sentence = refused(write(LEAST), override)
    for fragment in (f"argument '{override.partition('=')[0]}'", *fragments):
        assert fragment in sentence


def test_a_wrong_type_in_the_yaml_names_the_file(write: Write) -> None:
    assert re.search(r"mine\.yaml: optim\.lr: .*'fast'", refused(write(LEAST + "optim: {lr: fast}\n")))
    assert "'optim' holds keys" in refused(write(LEAST + "optim:\n"))


@pytest.mark.in_check(6)
@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("optim.lr=0", "optim.lr=0.0 must be a number above 0"),
        ("optim.lr=-1e-5", "optim.lr=-1e-05 must be a number above 0"),
        ("optim.lr=nan", "optim.lr=nan must be a number above 0"),
        ("optim.lr=.nan", "optim.lr=nan must be a number above 0"),
        ("optim.lr=inf", "optim.lr=inf must be a number above 0"),
        ("optim.batch_size=0", "optim.batch_size=0 must be at least 1"),
        ("optim.batch_size=-8", "optim.batch_size=-8 must be at least 1"),
        ("optim.epochs=0", "optim.epochs=0.0 must be above 0"),
        ("optim.epochs=nan", "optim.epochs=nan must be above 0"),
        ("optim.max_steps=-1", "optim.max_steps=-1 must be 0 or more"),
        ("optim.warmup_ratio=1.5", "optim.warmup_ratio=1.5 must be in [0, 1]"),
        ("optim.warmup_ratio=nan", "optim.warmup_ratio=nan must be in [0, 1]"),
        ("optim.warmup_steps=-1", "optim.warmup_steps=-1 must be 0 or more"),
        ("optim.weight_decay=nan", "optim.weight_decay=nan must be 0 or more"),
        ("optim.max_grad_norm=0", "optim.max_grad_norm=0.0 must be above 0"),
        ("optim.label_smoothing=1", "optim.label_smoothing=1.0 must be in [0, 1)"),
        ("optim.patience=0", "optim.patience=0 must be above 0"),
        ("model.dropout=1", "model.dropout=1.0 must be in [0, 1)"),
        ("data.max_length=4", "data.max_length=4 must be at least 8"),
        ("data.stride=-1", "task.stride=-1 must be 0 or more"),
        ("data.max_train_examples=0", "data.max_train_examples=0 must be above 0"),
        ("data.labels=[good,bad,good]", "has a label twice"),
        ("data.num_workers=-1", "data.num_workers=-1 must be 0 or more"),
        ("trainer.devices=0", "trainer.devices=0 must be auto or at least 1"),
        ("trainer.keep=0", "trainer.keep=0 must be at least 1"),
        ("trainer.checkpoint_every_minutes=0", "trainer.checkpoint_every_minutes=0.0 must be above 0"),
        ("seed=-1", "seed=-1 must be an integer from 0"),
        ("seed=4294967296", "seed=4294967296 must be an integer from 0"),
        ("seed_order=-1", "seed_order=-1 must be an integer from 0"),
        ("task=sentimnt", "task=sentimnt must be one of "),
    ],
)
def test_an_impossible_value_names_the_rule(write: Write, override: str, rule: str) -> None:
    assert rule in refused(write(LEAST), override)


def test_several_mistakes_are_reported_at_once(write: Write) -> None:
    sentence = refused(write(LEAST + "optim: {lr: 0, batch_size: 0}\nseed: -1\n"), "data.max_length=2")
    assert [
        key for key in ("seed=-1", "data.max_length=2", "optim.lr=0.0", "optim.batch_size=0") if key in sentence
    ] == [
        "seed=-1",
        "data.max_length=2",
        "optim.lr=0.0",
        "optim.batch_size=0",
    ]


def test_class_weights_and_balance_do_not_go_together(write: Write) -> None:
    both = ["optim.class_weights={good: 2}", "optim.balance_classes=true"]
    assert "drop one" in refused(write(LEAST), *both)


def test_what_must_be_given_is_named(write: Write) -> None:
    assert "does not say model.name and task" in refused(write("data: {train: a.jsonl}\n"))
    assert "data.train=None must name a file" in refused(write("task: sentiment\nmodel: {name: tiny}\n"))


def test_every_task_file_is_a_task() -> None:
    assert {"ner", "qa", "sentiment"} <= set(component.names("task"))
    assert not {"base", "__init__"} & set(component.names("task"))


# --- the file itself


def test_a_missing_file_suggests_its_neighbour(write: Write) -> None:
    path = write(LEAST, "experiments/ner/conll2003.yaml")
    sentence = refused(path.with_name("conll03.yaml"))
    assert "There is no experiment file" in sentence and f"Did you mean {path}?" in sentence
    assert "There is no experiment file" in refused(path.parent.parent / "absent" / "a.yaml")


def test_a_key_given_twice(write: Write) -> None:
    sentence = refused(write(LEAST + "seed: 1\nseed: 2\n"))
    assert "mine.yaml is not valid YAML" in sentence and "duplicate key seed" in sentence and "line 5" in sentence


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("- a\n- b\n", "must hold `key: value` lines"),
        ("optim: [\n", "is not valid YAML"),
        ("optim: {lr: 1\n", "is not valid YAML"),
        ("\toptim: 1\n", "is not valid YAML"),
    ],
)
def test_what_is_not_a_mapping(write: Write, text: str, fragment: str) -> None:
    assert fragment in refused(write(text))


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"task: ner\nwandb: {name: M\xfcller}\n")
    assert "mine.yaml is not UTF-8 text" in refused(path)


@pytest.mark.parametrize("argument", ["seed", "=3", " =3", "--seed"])
def test_an_override_without_a_key_and_an_equals_sign(write: Write, argument: str) -> None:
    assert f"'{argument}' is not of the form key=value" in refused(write(LEAST), argument)


@pytest.mark.parametrize(
    "text", ["run_dir: ${oc.env:SECRET}\n", "wandb: {tags: ['a${oc.env:SECRET}']}\n", "wandb: {project: '${seed}'}\n"]
)
def test_interpolations_are_refused_so_that_no_secret_is_recorded(
    write: Write, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    sentence = refused(write(LEAST + text))
    assert "hunter2" not in sentence and "mine.yaml" in sentence and "${" in sentence
    assert "hunter2" not in refused(write(LEAST), "wandb.project=${oc.env:SECRET}")


# --- records of a config


def changed(path: Path) -> Config:
    return load_config(
        path,
        ["optim.lr=3e-3", "optim.class_weights={a: 2.5}", "data.columns={text: body}", "trainer.devices=2", "seed=0"],
    )


def test_a_config_survives_its_run_folder(write: Write, tmp_path: Path) -> None:
    config = changed(write(LEAST + "wandb: {tags: [a, b]}\n"))
    assert from_dict(to_dict(config)) == config
    config.run_dir = str(tmp_path / "run")
    Run.open(config).close()
    assert Run.read(tmp_path / "run").config == config
    assert to_dict(config)["optim"]["lr"] == 3e-3


def test_keys_are_dotted() -> None:
    keys = list(all_keys(Config()))
    assert len(keys) == len(set(keys)) and {"seed", "optim.lr", "wandb.tags"} <= set(keys)
    own: Any = OmegaConf.to_container(OmegaConf.structured(Config))
    assert [own.pop(section) for section in ("augment", "methods", "callbacks", "loggers")] == [{}] * 4

    def count(section: Any) -> int:
        return sum(map(count, section.values())) if isinstance(section, dict) and section else 1

    assert len(keys) == count(own)


def test_differences_name_each_key(write: Write) -> None:
    old, new = to_dict(load_config(write(LEAST))), to_dict(changed(write(LEAST)))
    assert differences(old, old) == []
    assert differences(old, new) == [
        "data.columns.text: None -> body",
        "optim.lr: 5e-05 -> 0.003",
        "optim.class_weights.a: None -> 2.5",
        "trainer.devices: auto -> 2",
    ]


@pytest.mark.in_check(3)
@pytest.mark.parametrize(
    ("override", "decides"),
    [
        ("optim.lr=1e-3", True),
        ("seed=1", True),
        ("trainer.precision=fp32", True),
        ("trainer.evaluate_every_steps=5", True),
        ("trainer.monitor=loss", True),
        ("data.max_length=64", True),
        ("trainer.devices=2", False),
        ("trainer.num_nodes=2", False),
        ("trainer.packing=false", False),
        ("trainer.tokens_per_microbatch=512", False),
        ("trainer.checkpoint_every_steps=5", False),
        ("data.num_workers=2", False),
        ("run_dir=elsewhere", False),
        ("wandb.mode=disabled", False),
    ],
)
def test_result_keys_are_those_that_decide_the_numbers(write: Write, override: str, decides: bool) -> None:
    path = write(LEAST)
    old, new = (result_keys(to_dict(load_config(path, given))) for given in ([], [override]))
    assert bool(differences(old, new)) is decides


def test_files_are_looked_up_here_beside_the_yaml_and_above_experiments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("project/experiments/ner", "project/data", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    path = tmp_path / "project" / "experiments" / "ner" / "mine.yaml"
    path.write_text("task: ner\nmodel: {name: m}\ndata: {train: data/train.conll}\n")
    (tmp_path / "project" / "data" / "train.conll").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_config(path).data.train == str(tmp_path / "project" / "data" / "train.conll")
    (path.parent / "data").mkdir()
    (path.parent / "data" / "train.conll").touch()
    assert load_config(path).data.train == str(path.parent / "data" / "train.conll")
    (tmp_path / "elsewhere" / "data").mkdir()
    (tmp_path / "elsewhere" / "data" / "train.conll").touch()
    assert load_config(path).data.train == str(tmp_path / "elsewhere" / "data" / "train.conll")
