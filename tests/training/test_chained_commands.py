"""Commands that train one run after the other: stopped in the midst of one and resumed to the bit; on two ranks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from research.cli import main
from research.common.errors import UserError
from research.config.load import load_config
from research.tracking.run import Run
from research.training import chain
from tests.attempts import attempt_ranks
from tests.conftest import write_experiment, write_jsonl
from tests.continual.test_learn import write_tasks
from tests.methods.test_unlabelled import unlabelled
from tests.small_runs import SmallRuns, assert_same_bits, assert_same_up_to_rounding, stop_after

pytestmark = pytest.mark.slow
OPTIM = {"max_steps": 4, "batch_size": 4, "lr": 3e-3}


def command_of(name: str, small_runs: SmallRuns, folder: Path, strategies: Sequence[Any] = ("naive",)) -> list[str]:
    """A chain of runs of four steps each, in `folder`/out."""
    folder.mkdir(exist_ok=True)
    sections: dict[str, Any] = {"optim": OPTIM, "trainer": {"precision": "fp32", "progress": False}}
    if name == "continual":
        own = {"tasks": write_tasks(folder, small_runs.model), "output": str(folder / "out"), "fisher_examples": 4}
        experiment = {**sections, "wandb": {"mode": "disabled"}}
        (folder / "s.yaml").write_text(json.dumps({**own, "strategies": strategies, "experiment": experiment}))
        return ["continual", str(folder / "s.yaml")]
    data: dict[str, Any] = {"max_length": 24, **small_runs.data["sentiment"]}
    rounds = ["--rounds", "1", "--output", str(folder / "out")]
    if name == "self-train":
        data["unlabelled"] = str(unlabelled(small_runs))
        sections["methods"] = {"pseudo_labels": {"threshold": 0.0}}
    path = write_experiment(folder / "e.yaml", "sentiment", small_runs.model, data, **sections)
    if name == "self-train":
        return [name, str(path), *rounds]
    choice = ["--start", "8", "--budget", "4", "--strategy", "margin", "--seeds", "0"]
    return [name, str(path), *choice, *rounds]


def runs_in(folder: Path) -> dict[str, Run]:
    return {str(path.parent.relative_to(folder)): Run.read(path.parent) for path in folder.rglob("result.json")}


@pytest.mark.parametrize("name", ["simulate-active", "self-train"])
def test_stopped_in_its_second_run_and_resumed_is_bit_equal(name: str, small_runs: SmallRuns, tmp_path: Path) -> None:
    assert main(command_of(name, small_runs, tmp_path / "whole")) == 0
    arguments = command_of(name, small_runs, tmp_path / "cut")
    stop_after(6, arguments)
    assert main(arguments) == 0
    expected, found = runs_in(tmp_path / "whole" / "out"), runs_in(tmp_path / "cut" / "out")
    assert found.keys() == expected.keys() and len(found) >= 2
    for place, run in expected.items():
        assert_same_bits(found[place], run)
    attempts = [len(run.provenance["attempts"]) for run in found.values()]
    assert sorted(attempts)[-2:] == [1, 2]  # one was stopped


def test_each_strategy_is_resumed_in_its_second_task(small_runs: SmallRuns, tmp_path: Path) -> None:
    """With its file, memory or scores of the first task; one command that is stopped once in each of its strategies."""
    strategies = ["naive", "replay", {"ewc": {"strength": 50}}, "lwf", "adapter"]
    assert main(command_of("continual", small_runs, tmp_path / "whole", strategies)) == 0
    arguments = command_of("continual", small_runs, tmp_path / "cut", strategies)
    for steps in (6, 4, 4, 4, 8):  # two of a second task; two more and two of the next; an adapter has two tasks
        stop_after(steps, arguments)
    assert main(arguments) == 0
    expected, found = runs_in(tmp_path / "whole" / "out"), runs_in(tmp_path / "cut" / "out")
    assert found.keys() == expected.keys() and len(found) == 8
    for place, run in expected.items():
        assert_same_bits(found[place], run)
        assert len(found[place].provenance["attempts"]) == 1 + ("1-b" in place)


@pytest.mark.process
@pytest.mark.parametrize("name", ["continual", "simulate-active", "self-train"])
def test_every_run_has_the_ranks_that_are_asked_for(
    name: str, small_runs: SmallRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Continual learning by EWC, without forgetting and by replay, which read what earlier runs recorded."""
    request.getfixturevalue("forkserver")
    monkeypatch.setattr(chain, "launch", lambda size, command: attempt_ranks(command[4:], size, tmp_path / "log")[0])
    strategies = [{"ewc": {"strength": 50}}, "lwf", "replay"]
    # Of rounding noise, where a gradient is near zero, AdamW makes full steps at its usual eps.
    still = ["model.dropout=0", "optim.eps=1e-5"]
    assert main([*command_of(name, small_runs, tmp_path / "one", strategies), *still]) == 0
    layout = [*still, "trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp"]
    assert main([*command_of(name, small_runs, tmp_path / "two", strategies), *layout]) == 0
    expected, found = runs_in(tmp_path / "one" / "out"), runs_in(tmp_path / "two" / "out")
    # Untrained, the first task, the second by each strategy; or two rounds, the second random too in a simulation.
    count = {"continual": 5, "simulate-active": 3, "self-train": 2}[name]
    assert found.keys() == expected.keys() and len(found) == count
    for place, run in expected.items():
        assert found[place].provenance["attempts"][0]["ranks"] == 2
        assert_same_up_to_rounding(found[place], run)


def test_a_command_of_several_runs_is_started_once(
    small_runs: SmallRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "good", "label": "a"}] * 8)
    path = write_experiment(tmp_path / "e.yaml", "sentiment", small_runs.model, str(tmp_path / "rows.jsonl"))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"starts the ranks of each run by itself, and torchrun started it as 2; start"):
        chain.train_in_ranks(load_config(path, ["trainer.devices=auto"]))
