"""Modules with methods in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from research.batching.pack import pack
from research.config.load import load_config
from research.inference.fisher import encoder_parameters
from research.methods import ewc, recorded_logits
from research.training.build import build
from research.training.module import TaskModule
from research.training.trainer import make_trainer
from tests.methods.strengths import sections
from tests.small_runs import SmallRuns

Build = Callable[..., TaskModule]
Strong = Callable[[str, Sequence[str]], dict[str, Any]]


@pytest.fixture
def make(small_runs: SmallRuns) -> Build:
    """`make(task, override, section=...)` builds a module in training mode, with a trainer."""

    def making(task: str, *overrides: str, **sections: Any) -> TaskModule:
        (_, path, *given), _ = small_runs.arguments(task, overrides, sections)
        return ready(path, given)

    return making


def ready(path: str | Path, overrides: Sequence[str]) -> TaskModule:
    """The module of an experiment in training mode, with a trainer."""
    config = load_config(path, overrides)
    module = build(config).train()
    trainer = make_trainer(config, [], [])
    trainer.strategy.connect(module)
    module.trainer = trainer
    return module


def random_teacher(module: TaskModule, run: Path) -> None:
    """A run folder whose logits of the module's training data are random, of the shapes of the module's own."""
    run.mkdir(parents=True)
    (run / "result.json").write_text("{}")
    generator, examples = torch.Generator().manual_seed(7), {}
    for i in range(len(module.data.stores["train"])):
        micro = pack(module.data.stores["train"], torch.tensor([i]).numpy())
        with torch.no_grad():
            logits = module.target_logits(micro, module.outputs(micro))
        noise = [2 * torch.randn(each.shape, generator=generator) for each in logits]
        examples[i] = [x.masked_fill(each == -torch.inf, -torch.inf) for x, each in zip(noise, logits, strict=True)]
    facts = recorded_logits.facts_of(module.data, "train", module.targets_are_tokens)
    recorded_logits.write(run, facts, examples)


def random_fisher(module: TaskModule, run: Path) -> None:
    """A run folder with a random Fisher of a module's encoder, and weights beside its own."""
    generator, tensors = torch.Generator().manual_seed(5), {}
    for name, p in encoder_parameters(module).items():
        tensors[f"fisher.{name}"] = torch.rand(p.shape, generator=generator)
        tensors[f"weight.{name}"] = p.detach() + 0.1 * torch.randn(p.shape, generator=generator)
    save_file(tensors, run / ewc.FILE)


@pytest.fixture
def strong(make: Build, tmp_path: Path) -> Strong:
    """`strong(task, names)`: the experiment's `methods` at which each acts strongly."""

    def making(task: str, names: Sequence[str]) -> dict[str, Any]:
        found, teacher = sections(list(names), tmp_path), tmp_path / f"teacher-{task}"
        if "distil" in found:
            if not teacher.exists():
                random_teacher(make(task), teacher)
            found["distil"] = {**found["distil"], "teacher": str(teacher)}
        if "ewc" in found:
            random_fisher(make(task), tmp_path)
            found["ewc"] = {**found["ewc"], "runs": [str(tmp_path)]}
        return found

    return making
