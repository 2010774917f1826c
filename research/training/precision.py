"""Settle the precision of activations where the experiment leaves it to the device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from research.cluster.devices import fast_precision
from research.cluster.group import RankGroup
from research.config.schema import Config
from research.tracking.run import Run

AUTO = "auto"


def with_precision(config: Config, group: RankGroup | None = None) -> Config:
    """The config with a precision for `trainer.precision: auto`: the one its run folder began with, else what the
    device of rank 0 is fast in. A run that continues on another machine keeps its precision."""
    if config.trainer.precision != AUTO:
        return config
    chosen: Any = (group or RankGroup()).agree(lambda: begun_with(config) or fast_precision(config.trainer.accelerator))
    return replace(config, trainer=replace(config.trainer, precision=chosen))


def begun_with(config: Config) -> str | None:
    """The precision in the config of the run folder, None where there is none."""
    run = Run(str(config.run_dir))
    if not (run.path / "config.yaml").is_file():
        return None
    stored: str | None = run.stored_config.get("trainer", {}).get("precision")
    return stored
