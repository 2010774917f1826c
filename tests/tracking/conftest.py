"""A W&B server of the tests, and nothing of the person who runs them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from research.tracking import wandb as tracking
from tests.tracking.wandb_runs import use
from tests.wandb_server import WandbServer


@pytest.fixture
def own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, settings or home folder of the person who runs the tests; no long waits."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / ".netrc"))
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "1")
    monkeypatch.setenv("WANDB_MODE", "disabled")  # a shell's setting; the experiment's own wins
    monkeypatch.setattr(tracking, "INIT_SECONDS", 5.0)
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 5.0)


@pytest.fixture
def server(own_settings: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "60")  # it answers, however busy the machine
    monkeypatch.setattr(tracking, "INIT_SECONDS", 120.0)
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 120.0)
    with WandbServer() as served:
        use(served, monkeypatch)
        yield served
