"""The W&B report: its recipe, what is sent to a stand-in server, and what happens without one."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from research.cli import main
from research.common.errors import UserError
from research.report.grouping import group_runs
from research.report.groups import Grid
from research.report.records import Record, read_records
from research.report.render import wandb as wandb_report
from tests.report.sweeps import write_sweep
from tests.report.synthetic import MakeRun
from tests.wandb_server import WandbServer

pytestmark = pytest.mark.service

SCORES = "| system | F1 |\n| --- | --- |\n| a &lt;b&gt; | 90.1 |\n"
TRIALS = [(1e-5, 0.0, 0.6, "finished"), (3e-5, 0.1, 0.9, "finished")]

Study = tuple[list[Record], Grid]


def on_wandb(folders: list[Path]) -> None:
    """Give run folders W&B ids: r0, r1, ..."""
    for i, folder in enumerate(folders):
        (folder / "wandb").mkdir()
        (folder / "wandb" / "run_id").write_text(f"r{i}")


@pytest.fixture
def study(make_run: MakeRun, tmp_path: Path) -> Study:
    """Two systems of two runs each, one more that is not on W&B, and a search."""
    runs = [make_run(seed=seed, config={"optim.lr": rate}) for rate in (1e-5, 3e-5) for seed in (0, 1)]
    trials = write_sweep(tmp_path / "lr", TRIALS) / "trials"
    on_wandb([*runs, trials / "0000" / "seed0", trials / "0001" / "seed0"])
    make_run("other", seed=2, config={"optim.lr": 1e-5})
    records = read_records([tmp_path / "runs", tmp_path / "lr"])
    return records, group_runs(records)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbServer]:
    with WandbServer() as server:
        folders = {"WANDB_DIR": str(tmp_path), "WANDB_CONFIG_DIR": str(tmp_path)}
        for name, value in {**server.environment, **folders}.items():
            monkeypatch.setenv(name, value)
        yield server


def blocks_of(view: Any) -> Any:
    return json.loads(view["spec"])["blocks"]


def panels_of(view: Any) -> Any:
    grids = [block for block in blocks_of(view) if block["type"] == "panel-grid"]
    return [(grid["metadata"]["runSets"], grid["metadata"]["panelBankSectionConfig"]["panels"]) for grid in grids]


def test_the_recipe_has_the_systems_their_runs_and_the_searches(study: Study, tmp_path: Path) -> None:
    path = wandb_report.write_recipe(*study, SCORES, tmp_path, tmp_path.name)
    assert path == tmp_path / "wandb_report.yaml"
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert (recipe["project"], recipe["entity"], recipe["scores"]) == ("research", None, SCORES)
    (data_set,) = recipe["data_sets"]
    assert (data_set["metric"], data_set["split"]) == ("accuracy", "test")
    assert data_set["systems"] == {"lr 1e-5": ["r0", "r1"], "lr 3e-5": ["r2", "r3"]}
    assert recipe["searches"] == [
        {"name": "lr", "metric": "validation/accuracy", "runs": ["r4", "r5"],
         "parameters": {"optim.lr": True, "optim.warmup_ratio": False}}
    ]  # fmt: skip
    assert [run["id"] for run in recipe["runs"]].count(None) == 1


@pytest.mark.slow
def test_a_draft_with_the_same_content_is_saved(study: Study, server: WandbServer, tmp_path: Path) -> None:
    address = wandb_report.publish(wandb_report.write_recipe(*study, SCORES, tmp_path, tmp_path.name))
    (view,) = server.views
    assert view["type"] == "runs/draft" and view["entityName"] == "someone" and view["projectName"] == "research"
    assert view["displayName"] == tmp_path.name and address.endswith(f"reports/{tmp_path.name}--view1")
    assert SCORES in json.dumps(blocks_of(view), ensure_ascii=False).replace("\\n", "\n")
    curves, search, runs = panels_of(view)
    sets, panels = curves
    assert [each["name"] for each in sets] == ["lr 1e-5", "lr 3e-5"]
    assert '["r0", "r1"]' in json.dumps(sets[0]["filters"])
    assert [panel["viewType"] for panel in panels] == ["Run History Line Plot", "Run History Line Plot", "Bar Chart"]
    line = panels[0]["config"]
    assert line["metrics"] == ["validation/accuracy"] and line["xAxis"] == "trainer/global_step"
    assert (line["groupAgg"], line["groupArea"]) == ("mean", "stddev")
    kinds = [panel["viewType"] for panel in search[1]]
    assert kinds == ["Parallel Coordinates Plot", "Parameter Importance", "Scatter Plot", "Scatter Plot"]
    columns = search[1][0]["config"]["columns"]
    assert [column["accessor"] for column in columns] == [
        "config:optim.value.lr", "config:optim.value.warmup_ratio", "summary:validation/accuracy",
    ]  # fmt: skip
    assert columns[0]["log"] is True
    assert [panel["viewType"] for panel in runs[1]] == ["Run Comparer"]
    text = json.dumps(blocks_of(view))
    assert "/someone/research/runs/r0" in text and str(study[0][0].path.absolute()) in text
    assert "not on W&B" in text


@pytest.mark.slow
def test_the_recipe_alone_builds_it_again(study: Study, server: WandbServer, tmp_path: Path) -> None:
    path = wandb_report.write_recipe(*study, SCORES, tmp_path, tmp_path.name)
    path.write_text(path.read_text(encoding="utf-8").replace("title: ", "title: Again, "), encoding="utf-8")
    command = [sys.executable, "-m", "research.report.render.wandb", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert server.views[0]["displayName"] == f"Again, {tmp_path.name}"
    assert done.stdout.strip().endswith("--view1")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["forbidden", "broken", "nonsense"])
def test_a_server_that_does_not_take_it_is_reported_and_the_recipe_kept(
    study: Study, server: WandbServer, tmp_path: Path, mode: str
) -> None:
    server.mode = mode
    path = wandb_report.write_recipe(*study, SCORES, tmp_path, tmp_path.name)
    with pytest.raises(UserError, match=r"W&B did not take the report.*wandb_report\.yaml"):
        wandb_report.publish(path)
    assert path.is_file() and server.views == []


@pytest.mark.slow
def test_the_command_saves_a_draft_after_everything_else(
    study: Study, server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path / "runs"), "--output", str(tmp_path / "paper"), "--wandb"]) == 0
    assert "W&B draft: " in capsys.readouterr().out
    assert server.views[0]["displayName"] == "paper"
    assert "wandb_report.yaml" in json.loads((tmp_path / "paper" / "manifest.json").read_text())["files"]
    server.mode = "forbidden"
    assert main(["report", str(tmp_path / "runs"), "--output", str(tmp_path / "other"), "--wandb"]) == 2
    assert (tmp_path / "other" / "manifest.json").is_file()


def test_runs_that_were_not_recorded_for_wandb_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    records = read_records([make_run()])
    with pytest.raises(UserError, match="None of the runs was recorded for W&B"):
        wandb_report.write_recipe(records, group_runs(records), SCORES, tmp_path, tmp_path.name)
    assert not (tmp_path / "wandb_report.yaml").exists()


def test_runs_of_another_project_are_listed_but_not_drawn(make_run: MakeRun, tmp_path: Path) -> None:
    here = [make_run(seed=seed) for seed in range(2)]
    there = make_run(seed=2, config={"wandb.project": "elsewhere"})
    on_wandb([*here, there])
    records = read_records([tmp_path / "runs"])
    recipe = wandb_report.recipe(records, group_runs(records), SCORES, "t")
    assert recipe["project"] == "research"
    assert recipe["data_sets"][0]["systems"] == {"encoder-a": ["r0", "r1"]}
    assert [run["elsewhere"] for run in recipe["runs"]] == [False, False, True]
