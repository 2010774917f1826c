"""What every method keeps: layout, ranks and kills change nothing, and switched off it is not there."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from research.batching.pack import Planner
from research.cli import main
from research.common.errors import UserError
from research.config import component
from research.inference.logits import refuse_logits
from research.methods.hooks import entered
from research.tracking.run import Run
from research.training import backward
from research.training.module import TaskModule
from tests.commands import Command
from tests.methods.conftest import Build, Strong
from tests.methods.strengths import OFF, ON, UNLABELLED
from tests.small_runs import TASKS, SmallRuns, assert_same_bits, assert_same_up_to_rounding, losses

OF_CLASSES = {"mixup", "supcon"}
CHANGES_GRADIENTS = set(ON) - {"ema", "swa", "layer_decay"}


def test_every_method_is_held_to_this() -> None:
    assert sorted(ON) == sorted(OFF) and sorted([*ON, *UNLABELLED]) == component.names("method")


@pytest.mark.parametrize("name", [*ON, *UNLABELLED])
def test_a_method_file_cites_its_paper(name: str) -> None:
    said = ast.get_docstring(ast.parse(component.find("method", name).read_text(encoding="utf-8"))) or ""
    assert any(str(year) in said for year in range(1990, 2027))


def test_switched_off_a_method_is_not_there(make: Build) -> None:
    module = make("sentiment", methods=OFF)
    assert module.methods == {} and module.copies == 1 and module.rows is not None
    assert module.training_loss == module.loss


@pytest.mark.slow
def test_strength_zero_is_off_to_the_bit(small_runs: SmallRuns) -> None:
    plain = small_runs.train("sentiment", "model.dropout=0.1")
    assert_same_bits(small_runs.train("sentiment", "model.dropout=0.1", methods=OFF), plain)


def gradients(module: TaskModule) -> dict[str, Tensor]:
    """Of the first step, as the optimiser gets them."""
    layout = module.layout()
    planner = Planner(
        module.data.training_store(0), module.data.plan, 0, 1, layout.budget_tokens, layout.packed, layout.sparse_rows
    )
    item = planner(0)
    leaf = module.rows.begin(item.vocabulary) if module.rows is not None and item.vocabulary is not None else None
    torch.manual_seed(0)
    with entered(method.at_step(module) for method in module.methods.values()):
        loss = backward.backward(module, item)
    for method in module.methods.values():
        method.after_backward(module)
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return {**found, "loss": loss, **({} if leaf is None or leaf.grad is None else {"rows": leaf.grad})}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_micro_batches_and_padding_change_no_gradient(task: str, make: Build, strong: Strong) -> None:
    """Of any method that acts on them: one micro-batch, one an example, and padded.

    Classification has all methods; the other tasks share them out, to save time.
    """
    start = ("optim.batch_size=6",)
    plain = gradients(make(task, *start))
    names = sorted(CHANGES_GRADIENTS)
    if task != "sentiment":
        names = [*sorted(CHANGES_GRADIENTS - OF_CLASSES - {"distil"})[TASKS.index(task) - 1 :: 3], "distil"]
    for name in names:
        methods = strong(task, [name])
        expected = gradients(make(task, *start, methods=methods))
        largest = max(float(g.abs().max()) for key, g in expected.items() if key != "loss")
        assert any(not torch.equal(g, plain[key]) for key, g in expected.items() if key in plain), name
        for layout in ("trainer.tokens_per_microbatch=1", "trainer.packing=false"):
            got = gradients(make(task, *start, layout, methods=methods))
            assert got.keys() == expected.keys()
            for key, g in expected.items():
                difference = float((got[key] - g).abs().max())
                assert difference <= 2e-5 * max(largest, 1.0), f"{name}, {layout}, {key}: {difference:.1e}"


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("ner", ["fgm", "l1", "l2_sp", "mixout", "ema", "distil"]),
        ("qa", ["r_drop", "freelb", "swa", "layer_decay"]),
        ("sentiment", ["supcon", "mixout"]),
        ("choice", ["pgd", "distil"]),
        ("ner", ["smart"]),
        ("qa", ["r3f"]),
        ("sentiment", ["simcse"]),
        ("sentiment", ["ewc"]),
        ("sentiment", ["mixup"]),
    ],
)
def test_two_ranks(task: str, names: list[str], small_runs: SmallRuns, strong: Strong) -> None:
    methods = strong(task, names)
    reference = small_runs.train(task, methods=methods)
    assert_same_up_to_rounding(small_runs.train_ranks(task, 2, methods=methods), reference)


@pytest.mark.slow
@pytest.mark.parametrize("name", ON)
def test_killed_and_resumed_is_bit_equal(name: str, small_runs: SmallRuns, strong: Strong) -> None:
    dropout, own = ("model.dropout=0.1",), {"methods": strong("sentiment", [name])}
    reference = small_runs.train("sentiment", *dropout, **own)
    arguments, folder = small_runs.stopped(4, "sentiment", *dropout, **own)
    assert main(arguments) == 0
    assert_same_bits(Run(folder), reference)


@pytest.mark.slow
def test_methods_that_do_not_go_together_are_refused(make: Build) -> None:
    refused = {
        ("fgm", "pgd"): "methods.pgd does not go with methods.fgm: each moves the embedded tokens; choose one",
        ("smart", "mixup"): "methods.mixup does not go with methods.smart: each moves the embedded tokens",
        ("r_drop", "r3f"): "methods.r3f does not go with methods.r_drop: each reads the outputs of its own passes",
        ("fgm", "simcse"): "methods.simcse does not go with methods.fgm: its loss is of whole steps",
        ("supcon", "simcse"): "methods.simcse does not go with methods.supcon: each compares the texts of a step",
        ("ema", "swa"): "methods.swa does not go with methods.ema: each chooses the weights that are scored",
    }
    for names, said in refused.items():
        with pytest.raises(UserError, match=said):
            make("sentiment", methods={name: ON[name] for name in names})


@pytest.mark.in_check(1)
@pytest.mark.parametrize("name", ["ema", "swa", "l1", "l2_sp", "mixout", "ewc", "mean_teacher", "smart"])
def test_methods_of_whole_weights_are_refused_where_a_model_is_shared_out(name: str, make: Build) -> None:
    keys = {**ON, **UNLABELLED}[name] | ({"runs": ["earlier"]} if name == "ewc" else {})
    with pytest.raises(UserError, match=f"methods.{name} does not go with trainer.strategy=fsdp; use ddp"):
        make("sentiment", "trainer.strategy=fsdp", methods={name: keys})


def test_smart_without_averaged_weights_goes_with_a_model_that_is_shared_out(make: Build) -> None:
    assert "smart" in make("sentiment", "trainer.strategy=fsdp", methods={"smart": {"bregman": 0.0}}).methods


@pytest.mark.parametrize("name", ["l2_sp", "mixout"])
def test_pulls_to_pretrained_weights_are_refused_where_none_is_trained(name: str, make: Build) -> None:
    with pytest.raises(UserError, match=f"methods.{name}: adapter=lora trains no pretrained"):
        make("ner", adapter={"name": "lora"}, methods={name: ON[name]})


def test_layer_decay_is_refused_where_the_head_alone_is_trained(make: Build) -> None:
    with pytest.raises(UserError, match=r"methods\.layer_decay: adapter=freeze trains no layer or embedding; remove"):
        make("sentiment", adapter={"name": "freeze", "names": ["bert.*"]}, methods={"layer_decay": ON["layer_decay"]})


@pytest.mark.in_check(1)
@pytest.mark.parametrize("task", ["ner", "qa", "choice"])
def test_methods_of_classes_are_refused_for_other_tasks(task: str, make: Build) -> None:
    for name in OF_CLASSES:
        with pytest.raises(UserError, match=f"methods.{name} does not go with task .*: it needs one class for each"):
            make(task, methods={name: ON[name]})


@pytest.mark.in_check(1)
@pytest.mark.parametrize(
    ("methods", "passes"),
    [
        ({"pgd": {}}, "pgd: 4.1"),
        ({"freelb": {"steps": 2}}, "freelb: 2.5"),
        ({"smart": {}}, "smart: 2.8"),
        ({"smart": {"steps": 2, "bregman": 1.0}}, "smart: 4"),
    ],
)
def test_show_prints_what_a_step_costs(
    methods: dict[str, Any], passes: str, small_runs: SmallRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    (_, *given), _ = small_runs.arguments("sentiment", (), {"methods": methods})
    assert main(["show", *given]) == 0
    assert f"method {passes} passes a step" in capsys.readouterr().out


NUMBERS = [{"text": f"film {i}", "score": i} for i in range(8)]
SETS = [{"text": f"film {i}", "label": ["a", "b"][: i % 3]} for i in range(8)]


@pytest.mark.in_check(1)
@pytest.mark.parametrize(
    ("task", "rows", "name"),
    [("regression", NUMBERS, "r_drop"), ("multi_label", SETS, "smart"), ("regression", NUMBERS, "distil")],
)
def test_a_method_that_compares_logits_is_refused_where_a_task_gives_none(
    task: str, rows: list[dict[str, Any]], name: str, command: Command, make: Build
) -> None:
    """Before the first step, by `show` and `train` alike; the tasks and methods that are named do go together."""
    path = command.file("train.jsonl", rows)
    said = command.refused(task, path, f"methods.{name}={{}}")
    assert said.startswith(f"methods.{name} does not go with task '{task}': it compares distributions over classes or")
    assert (
        f"classification, ner, qa, choice and translation; task '{task}' goes with methods such as fgm, freelb," in said
    )
    assert main(["show", str(command.folder / "mine.yaml"), f"methods.{name}={{}}"]) == 2
    assert said in command.capsys.readouterr().err
    for other in ("classification", "ner", "qa", "choice", "translation"):
        assert component.load("task", other).Module.defines("target_logits"), other
    methods = {other: ON[other] for other in ("fgm", "l2_sp", "ema")}
    assert set(make(task, data={"train": str(path)}, methods=methods).methods) == set(methods)


def test_distillation_is_refused_where_a_task_does_not_say_whose_its_logits_are(
    command: Command,
) -> None:
    rows = [{"query": "a film", "documents": ["good film", "a city"], "relevant": [1, 0]} for _ in range(4)]
    path = command.file("train.jsonl", rows)
    said = command.refused("rerank", path, "methods.distil={}")
    assert said.startswith("methods.distil does not go with task 'rerank': it reads logits that were kept by example")
    assert "classification, ner, qa and choice; task 'rerank' goes with r_drop, r3f and smart." in said
    for other in ("classification", "ner", "qa", "choice"):
        assert component.load("task", other).Module.defines("target_examples"), other
    assert main(["show", str(command.folder / "mine.yaml"), "methods={r3f: {}}"]) == 0
    with pytest.raises(UserError, match="--logits: task 'rerank' does not say which logits are of which example"):
        refuse_logits(Run.read(command.run), "train")


@pytest.mark.slow
def test_methods_and_an_adapter_together(small_runs: SmallRuns, capsys: pytest.CaptureFixture[str]) -> None:
    methods: dict[str, Any] = {name: ON[name] for name in ("r_drop", "fgm", "ema", "layer_decay", "l1")}
    run = small_runs.train("qa", adapter={"name": "lora", "rank": 2}, methods=methods)
    said = capsys.readouterr().err
    assert (run.result or {})["steps"] == 6 and np.isfinite(losses(run)).all()
    assert "adapter lora: rank 2 beside 4 linear layers (attention.self.query, attention.self.value)" in said
    assert "method r_drop: 2 passes a step" in said
