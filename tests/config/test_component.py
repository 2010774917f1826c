"""Components found by name, path or dotted module; their own keys read from the source, and set like any other key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from research.common.errors import UserError
from research.config import component
from research.config.load import from_dict, load_config
from research.config.tree import differences, to_dict
from research.sweep.space import read_sweep

LEAST = "task: {task}\nmodel: {{name: tiny}}\ndata: {{train: train.jsonl}}\n"
METHOD = """
import torch
from dataclasses import dataclass
from typing import Literal

from research.config.component import above, key

KINDS = Literal["kl", "js"]
DEFAULT = 1 + 1


@dataclass
class Keys:
    alpha: float = key(DEFAULT / 2, "weight of the divergence", above(0))
    kind: KINDS = key("kl", "which divergence")
    start: int | None = key(None, "first step")


class Method:
    layer = torch.nn.Linear(1, 1)
"""


DATACLASS = "class Method: pass\nfrom dataclasses import dataclass\n@dataclass\nclass Keys:\n"


def experiment(folder: Path, task: str = "ner", more: str = "") -> Path:
    path = folder / "mine.yaml"
    path.write_text(LEAST.format(task=task) + more)
    return path


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    return str(caught.value)


@pytest.fixture
def method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "divergence.py").write_text(METHOD)
    return tmp_path / "divergence.py"


def test_a_component_of_several_names_has_one_canonical_name(method: Path) -> None:
    names = {"sentiment": "classification", "qa": "extractive_qa", "choice": "multiple_choice", "clm": "lm"}
    others = {name: name for name in component.names("task") if name not in names}
    assert {name: component.canonical("task", name) for name in component.names("task")} == names | others
    for name in ("gone", "./divergence.py", "research.tasks.ner"):
        assert component.canonical("task", name) == name


def test_reading_keys_does_not_import_torch(method: Path) -> None:
    path = experiment(method.parent, "qa", "methods: {./divergence.py: {alpha: 2.0}}\n")
    code = (
        "import sys\nfrom research.config.load import load_config\n"
        f"config = load_config({str(path)!r}, ['task.stride=5', 'methods.divergence.kind=js'])\n"
        "print(config.task.stride, config.methods['divergence'].alpha, config.methods['divergence'].kind)\n"
        "print([m for m in ('torch', 'transformers', 'lightning', 'datasets', 'optuna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["5 2.0 js", "[]"]


def test_a_task_by_its_name_alone_has_the_defaults_of_its_keys(tmp_path: Path) -> None:
    config = load_config(experiment(tmp_path))
    assert (config.task.name, config.task.stride, config.adapter.name, config.methods) == ("ner", 128, "full", {})
    assert load_config(experiment(tmp_path, "{name: ner, stride: 3}")).task.stride == 3
    assert load_config(experiment(tmp_path), ["task.stride=64"]).task.stride == 64


def test_other_names_have_the_same_keys(tmp_path: Path) -> None:
    for name in ("qa", "extractive_qa"):
        task = load_config(experiment(tmp_path, name), ["task.rules=cmrc"]).task
        assert (task.name, task.rules, task.max_answer_tokens) == (name, "cmrc", 30)


@pytest.mark.in_check(4)
@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("task.strid=3", ("unknown key 'task.strid'", "Did you mean task.stride?")),
        ("stride=3", ("unknown key 'stride'", "Did you mean task.stride?")),
        ("task.stride=-1", ("task.stride=-1 must be 0 or more tokens",)),
        ("task.stride=x", ("task.stride", "'x'", "Integer")),
        ("task=nre", ("task=nre must be one of", "Did you mean ner?")),
        ("task=3", ("task=3 must be one of",)),
        ("adapter=ful", ("adapter=ful must be one of", "Did you mean full?")),
        ("adapter.rank=8", ("unknown key 'adapter.rank'",)),
        ("adapter={lora: {}, ia3: {}}", ("There is one adapter: write adapter: {name: lora}",)),
        ("adapter=lorra", ("adapter=lorra must be one of", "Did you mean lora?")),
        ("adapter=[lora, head]", ("adapter=[lora, head] must be one of",)),
        ("adapter={name: lora, rank: 0}", ("adapter.rank=0 must be at least 1",)),
        ("adapter={name: prompt, tokens: 0}", ("adapter.tokens=0 must be at least 1",)),
        ("methods.nothing.alpha=1", ("method=nothing must be one of",)),
        ("methods.r_dorp.alpha=1", ("method=r_dorp must be one of", "Did you mean r_drop?")),
        ("methods.distil.alpha=1.5", ("methods.distil.alpha=1.5 must be in [0, 1]",)),
        ("augment.swop.rate=1", ("augmentation=swop must be one of", "Did you mean swap?")),
        ("methods.divergence=", ("write {} for its defaults",)),
        ("methods.divergence.alpha=0", ("methods.divergence.alpha=0.0 must be above 0",)),
        ("methods.divergence.alfa=1", ("'methods.divergence.alfa'", "Did you mean methods.divergence.alpha?")),
        ("methods.divergence.kind=x", ("methods.divergence.kind", "'kl', 'js'")),
        ("task.name=./divergence.py", ("divergence.py does not define Data and Module",)),
    ],
)  # fmt: skip
def test_mistakes_name_the_key_and_the_nearest(method: Path, override: str, fragments: tuple[str, ...]) -> None:
    sentence = refused(experiment(method.parent, more="methods: {./divergence.py: {}}\n"), override)
    for fragment in fragments:
        assert fragment in sentence


def test_two_adapters_at_once_are_refused(tmp_path: Path) -> None:
    sentence = refused(experiment(tmp_path, more="adapter: [lora, head]\n"))
    assert "adapter must be the name of one adapter or hold its keys, not ['lora', 'head']" in sentence


def test_methods_are_switched_on_and_off(method: Path) -> None:
    path = experiment(method.parent, more="methods: {./divergence.py: true}\n")
    config = load_config(path)
    assert config.methods["divergence"].alpha == 1.0 and config.methods["divergence"].name == str(method)
    assert load_config(path, ["methods.divergence=false"]).methods == {}
    assert from_dict(to_dict(config)) == config
    assert component.load("method", config.methods["divergence"].name).Method.layer.in_features == 1


def test_keys_of_a_task_that_is_replaced_do_not_count(tmp_path: Path) -> None:
    path = experiment(tmp_path, "{name: qa, rules: cmrc}")
    assert load_config(path, ["task=ner"]).task == load_config(experiment(tmp_path)).task
    assert "unknown key 'task.rules'" in refused(experiment(tmp_path, "{name: ner, rules: cmrc}"))


def test_a_name_set_later_keeps_keys_that_named_no_component(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("task: {stride: 7}\n")
    assert load_config(experiment(tmp_path, more="extends: base.yaml\n")).task.stride == 7


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("class Method: pass\nclass Keys: pass\n", None, "must be a dataclass"),
        (DATACLASS + "    a: int\n", None, "no default"),
        (DATACLASS + "    a: int = b\n", 5, "NameError"),
        ("class Method:\n    x = (\n", 2, "SyntaxError"),
        ("class Method: pass\nLEAST = 1 / 0\nclass Keys:\n    a: int = LEAST\n", 2, "ZeroDivisionError"),
        ("class Method: pass\nfrom nowhere import Keys\n", 2, "nowhere"),
        ("class Keys: pass\n", None, "does not define Method"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named_with_its_line(method: Path, source: str, line: int | None, said: str) -> None:
    method.write_text(source)
    sentence = refused(experiment(method.parent, more="methods: {./divergence.py: {}}\n"))
    assert (f"{method}:{line}" if line else str(method)) in sentence and said in sentence and "\n" not in sentence


def test_a_file_that_fails_when_it_is_imported_is_named_with_its_line(method: Path) -> None:
    method.write_text("import os\n\nclass Method:\n    value = os.environ['ABSENT']\n")
    with pytest.raises(UserError, match=rf"{method}:4: KeyError"):
        component.load("method", str(method))


def test_old_names_still_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = experiment(tmp_path, "qa")
    old = load_config(path, ["data.stride=5", "data.scorer=cmrc", "data.max_answer_tokens=9"])
    assert old == load_config(path, ["task.stride=5", "task.rules=cmrc", "task.max_answer_tokens=9"])
    assert "data.scorer is now task.rules" in caplog.text
    stored = to_dict(old)
    stored["task"] = "qa"
    stored["data"] |= {"stride": 5, "scorer": "cmrc", "max_answer_tokens": 9}
    del stored["adapter"], stored["methods"], stored["callbacks"]
    assert from_dict(stored) == old
    stored["task"] = "sentiment"
    assert from_dict(stored).task == component.choose("task", "sentiment")


@pytest.mark.slow
def test_differences_and_sweeps_see_own_keys(method: Path) -> None:
    path = experiment(method.parent, more="methods: {./divergence.py: {}}\n")
    old, new = (to_dict(load_config(path, given)) for given in ([], ["task.stride=1", "methods.divergence.alpha=3"]))
    assert differences(old, new) == ["task.stride: 128 -> 1", "methods.divergence.alpha: 1.0 -> 3.0"]
    sweep = method.parent / "sweep.yaml"
    path.write_text(path.read_text().replace("train: train.jsonl", "train: train.jsonl, validation: v.jsonl"))
    sweep.write_text(
        "experiment: mine.yaml\nbudget: {trials: 2}\nspace:\n  task.stride: {low: 1, high: 9}\n"
        "  methods.divergence.alpha: {low: 0.5, high: 2}\n"
    )
    space = read_sweep(sweep).space
    assert [space[key].whole for key in ("task.stride", "methods.divergence.alpha")] == [True, False]
    sweep.write_text(sweep.read_text().replace("divergence.alpha", "divergence.alfa"))
    with pytest.raises(UserError, match=r"Did you mean methods\.divergence\.alpha"):
        read_sweep(sweep)
