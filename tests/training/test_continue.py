"""A finished run is made longer where its schedule allows, and is to the bit the run that was longer from the start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from research.cli import main
from research.cluster.signals import STOPPED
from research.common.errors import UserError
from research.config.length import why_not_longer
from research.inference.finished_run import is_intact
from research.inference.prune import removable
from research.tracking.run import Run
from research.training import checkpoint
from tests.small_runs import SmallRuns, assert_same_bits

OPTIM = {"batch_size": 4, "lr": 5e-3, "schedule": "constant", "warmup_steps": 3, "warmup_ratio": 0.0}
CONSTANT: dict[str, object] = {"schedule": "constant"}
WSD: dict[str, object] = {"schedule": "wsd", "decay_ratio": 0.3}
STOPPING = """
import os
import signal
from lightning.pytorch.loggers import CSVLogger

class Logger(CSVLogger):
    def __init__(self, keys, folder):
        super().__init__(folder, name="stopping")

    def log_metrics(self, metrics, step):
        if step == 24:
            os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keep", "schedule"),
    [("none", CONSTANT), ("best", CONSTANT), ("best", WSD), ("all", WSD)],
)
def test_two_epochs_then_four_are_four(
    keep: str, schedule: dict[str, object], small_runs: SmallRuns, capfd: pytest.CaptureFixture[str]
) -> None:
    optim = {**OPTIM, **schedule}
    whole = small_runs.train("sentiment", optim={**optim, "epochs": 4}, model=dropping(small_runs))
    run = small_runs.train("sentiment", f"trainer.keep_checkpoints={keep}", "trainer.checkpoint_every_steps=4",
                           f"trainer.keep={9 if keep == 'all' else 2}",
                           optim={**optim, "epochs": 2}, model=dropping(small_runs))  # fmt: skip
    short, files = run.result or {}, sorted(run.path.rglob("*.parquet"))
    assert short["steps"] == 20 and len(files) == 2
    if schedule is WSD:  # its rate falls from step 14 of 20 on: the evaluation after step 10 is the last before
        assert short["continue_steps"][""] == 10 and checkpoint.at_step(run.checkpoints, 10)
    again = ["train", str(run.path.parent / "experiment.yaml"), f"run_dir={run.path}", "optim.epochs=4",
             f"trainer.keep_checkpoints={keep}"]  # fmt: skip
    if keep == "best":  # stopped on the way: what is there is still the shorter run's, whole
        (run.path.parent / "my_logger.py").write_text(STOPPING)
        assert main([*again, "loggers={./my_logger.py: {}}"]) == STOPPED
        assert run.result == short and run.config.optim.epochs == 2
        assert all(is_intact(run, name) for name in short["files"])
        assert checkpoint.step_of(checkpoint.files(run.checkpoints)[0]) == 24 and removable(run, "none") == []
    assert main(again) == 0
    assert_same_bits(run, whole)
    assert (run.result or {})["steps"] == 40 and run.config.optim.epochs == 4
    assert sorted(run.path.rglob("*.parquet")) == files and all(is_intact(run, name) for name in short["files"])
    said = capfd.readouterr().err
    begun = 12 if keep == "all" else short["continue_steps"][""]  # the last one that was saved before the decay
    assert (f"Continuing the finished run {run.path} at step {begun}." in said) == (keep != "none")
    assert main(again) == 0 and "This run is finished" in capfd.readouterr().err


def dropping(small_runs: SmallRuns) -> dict[str, object]:
    return {"name": str(small_runs.model), "dropout": 0.1}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 4, "schedule": "linear"}, "with optim.schedule=linear each step's learning rate depends"),
        ({"epochs": 4, "schedule": "cosine"}, "or use optim.schedule=constant or wsd with optim.warmup_steps"),
        (
            {"epochs": 4, "warmup_steps": None, "warmup_ratio": 0.1},
            "its warmup was optim.warmup_ratio=0.1",
        ),
        ({"epochs": 1}, "a run is not made shorter"),
        ({"max_steps": 100}, "give its length by the key that it was begun with"),
        ({"epochs": 2.5}, None),
        ({"epochs": 4, "schedule": "wsd"}, None),
        ({"epochs": 4, "warmup_steps": None}, None),
    ],
)
def test_reasons_against_continuing_are_reported(changes: dict[str, object], said: str | None, tmp_path: Path) -> None:
    optim = {**OPTIM, **changes, "epochs": 2, "max_steps": None}
    reason = why_not_longer({"optim": optim}, {"optim": {**optim, **changes}})
    assert reason is None if said is None else said in (reason or "")


@pytest.mark.parametrize(
    ("part", "said"),
    [({"methods": {"swa": {"start": 0.5}}}, "methods.swa"), ({"adapter": {"name": "adalora"}}, "adapter=adalora")],
)
def test_what_acts_by_the_length_is_not_continued(part: dict[str, object], said: str) -> None:
    old, new = ({"optim": {**OPTIM, "epochs": epochs, "max_steps": None}, **part} for epochs in (2, 4))
    assert why_not_longer(old, new) == f"what {said} does at a step depends on the run's length"


def test_the_refusal_names_the_run_and_the_keys(tmp_path: Path) -> None:
    content = {"task": "sentiment", "model": {"name": "m"}, "data": {"train": "t.jsonl"}, "optim": {"epochs": 2}}
    run = Run(tmp_path)
    (tmp_path / "config.yaml").write_text(json.dumps(content))
    (tmp_path / "provenance.json").write_text("{}")
    longer = {**run.stored_config, "optim": {"epochs": 3}}
    with pytest.raises(UserError, match=r"cannot be continued \(optim\.epochs: 2\.0 -> 3\.0\): with optim\.sched"):
        run.refuse_another_experiment(config_of(longer, tmp_path))


def config_of(content: dict[str, object], folder: Path) -> dict[str, object]:
    from research.config.load import from_dict
    from research.config.tree import to_dict

    return to_dict(from_dict(content))
