"""Modules with methods in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from research.config.load import load_config
from research.training.build import build
from research.training.module import TaskModule
from research.training.trainer import make_trainer
from tests.small_runs import SmallRuns

Build = Callable[..., TaskModule]


@pytest.fixture
def make(small_runs: SmallRuns) -> Build:
    """`make(task, override, section=...)` builds a module in training mode, with a trainer."""

    def making(task: str, *overrides: str, **sections: Any) -> TaskModule:
        (_, path, *given), _ = small_runs.arguments(task, overrides, sections)
        config = load_config(path, given)
        module = build(config).train()
        trainer = make_trainer(config, [], [])
        trainer.strategy.connect(module)
        module.trainer = trainer
        return module

    return making
