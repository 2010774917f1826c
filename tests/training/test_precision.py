"""`trainer.precision: auto` is settled once for a run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from research.cluster.devices import fast_precision
from research.common.errors import UserError
from research.config.schema import Config
from research.config.tree import to_dict
from research.tracking.run import Run
from research.training.precision import with_precision


def test_auto_is_what_the_device_is_fast_in(tmp_path: Path) -> None:
    config = Config(run_dir=str(tmp_path / "run"))
    assert config.trainer.precision == "auto"
    assert with_precision(config).trainer.precision == fast_precision("auto")
    assert config.trainer.precision == "auto"  # the experiment's own is left as it is


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_run_keeps_the_precision_it_began_with(precision: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    (tmp_path / "config.yaml").write_text(f"task: sentiment\ntrainer: {{precision: {precision}}}\n", encoding="utf-8")
    assert with_precision(Config(run_dir=str(run.path))).trainer.precision == precision


def test_a_run_that_began_with_auto_is_no_other_experiment(tmp_path: Path) -> None:
    """Also where torch is not imported yet, and auto is not settled."""
    whole = "task: sentiment\nmodel: {name: m}\ndata: {train: a.csv}\nrun_dir: runs/a\ntrainer: {precision: fp32}\n"
    (tmp_path / "config.yaml").write_text(whole, encoding="utf-8")
    (tmp_path / "provenance.json").write_text("{}", encoding="utf-8")
    run, given = Run(tmp_path), to_dict(Run(tmp_path).config)
    run.refuse_another_experiment({**given, "trainer": {**given["trainer"], "precision": "auto"}})
    with pytest.raises(UserError, match=r"it differs in trainer\.precision: fp32 -> bf16"):
        run.refuse_another_experiment({**given, "trainer": {**given["trainer"], "precision": "bf16"}})


def test_a_precision_that_is_named_is_left(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("task: sentiment\ntrainer: {precision: fp32}\n", encoding="utf-8")
    config = Config(run_dir=str(tmp_path))
    config.trainer.precision = "bf16"
    assert with_precision(config) is config


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("task: [", encoding="utf-8")
    with pytest.raises(UserError, match="is damaged"):
        with_precision(Config(run_dir=str(tmp_path)))
