"""A Weights & Biases report beside the paper: the same table, live curves and searches, links to the runs.

What it shows is a recipe, `wandb_report.yaml` in the report's folder: a person can read and change it, and
`python -m research.report.render.wandb paper/wandb_report.yaml` builds it again, without the run folders.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from research.common.errors import UserError
from research.common.files import write_atomically
from research.common.text import one_line
from research.report.groups import Grid, leading_groups
from research.report.records import Record
from research.report.searches import find_searches
from research.tracking.wandb_files import FAILURES

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr

NAME = "wandb_report.yaml"
MOST_SYSTEMS = 10  # run sets of one panel grid
LONGEST_TITLE = 128  # characters, by W&B
STEP = "trainer/global_step"


def write_recipe(records: Sequence[Record], grid: Grid, scores: str, folder: Path, title: str) -> Path:
    """Write the recipe; `scores` is the main table as Markdown. Raises UserError where no run was recorded for W&B."""
    path = folder / NAME
    content = recipe(records, grid, scores, title)
    with write_atomically(path) as temporary:
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")
    return path


def recipe(records: Sequence[Record], grid: Grid, scores: str, title: str) -> dict[str, Any]:
    """Everything the report shows, as plain values."""
    ids = {record.path: run_id for record in records if (run_id := wandb_id(record))}
    if not ids:
        raise UserError("None of the runs was recorded for W&B (wandb.mode=disabled); there is nothing to report on.")
    places = Counter(_place(record) for record in records if record.path in ids)
    (entity, project), _ = places.most_common(1)[0]
    here = {record.path for record in records if record.path in ids and _place(record) == (entity, project)}
    return {
        "title": title[:LONGEST_TITLE],
        "entity": entity,
        "project": project,
        "scores": scores,
        "data_sets": [_data_set(grid, data_set, ids, here) for data_set in grid.data_sets],
        "searches": [
            {
                "name": search.name,
                "metric": f"{search.trials[0].runs[0].watched_split}/{search.metric}",
                "parameters": {key: bool(asked.get("log")) for key, asked in search.space.items()},
                "runs": [ids[run.path] for trial in search.trials for run in trial.runs if run.path in here],
            }
            for search in find_searches(records)
        ],
        "runs": [
            {"folder": str(record.path.absolute()), "status": record.status, "id": ids.get(record.path),
             "elsewhere": record.path in ids and record.path not in here}
            for record in records
        ],
    }  # fmt: skip


def wandb_id(record: Record) -> str | None:
    """The id of a run folder's W&B run; None where it has none."""
    path = record.path / "wandb" / "run_id"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def _place(record: Record) -> tuple[str | None, str]:
    return record.config["wandb"]["entity"], record.config["wandb"]["project"]


def _data_set(grid: Grid, data_set: str, ids: dict[Path, str], here: set[Path]) -> dict[str, Any]:
    groups = leading_groups(grid, data_set, MOST_SYSTEMS)
    return {
        "name": data_set,
        "metric": groups[0].metric if groups else "",
        "watched": groups[0].runs[0].watched_split if groups else "validation",
        "split": groups[0].split if groups else "validation",
        "systems": {group.system: [ids[run.path] for run in group.runs if run.path in here] for group in groups},
    }


def publish(path: Path) -> str:
    """Save the recipe's report as a draft and return its address. Raises UserError where W&B does not take it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        report = make_report(content)
        report.save(draft=True)
        return str(report.url)
    except FAILURES as error:
        raise UserError(
            f"W&B did not take the report ({one_line(error)}). The recipe is kept: when W&B answers, "
            f"`python -m research.report.render.wandb {path}` builds it."
        ) from None


def make_report(content: dict[str, Any]) -> wr.Report:
    """The report of a recipe, not yet saved."""
    import wandb_workspaces.reports.v2 as wr

    place = {"entity": content["entity"]} if content["entity"] else {}  # else the one who is logged in
    report = wr.Report(project=content["project"], title=content["title"], **place)
    blocks: list[Any] = [wr.TableOfContents(), wr.H1("Scores"), wr.MarkdownBlock(content["scores"])]
    blocks.append(wr.H1("Learning curves"))
    for data_set in content["data_sets"]:
        blocks += [wr.H2(data_set["name"]), curves(data_set)]
    if content["searches"]:
        blocks.append(wr.H1("Searches"))
    for search in content["searches"]:
        blocks += [wr.H2(search["name"]), search_grid(search)]
    shown = [run["id"] for run in content["runs"] if run["id"] and not run["elsewhere"]]
    comparer = wr.RunComparer(diff_only=True, layout=wr.Layout(w=24, h=12))
    blocks += [wr.H1("Runs"), wr.PanelGrid(runsets=[run_set("all runs", shown)], panels=[comparer])]
    report.blocks = [*blocks, run_list(content, report.entity)]
    return report


def run_set(name: str, ids: Sequence[str], grouped: bool = False) -> wr.Runset:
    """Some runs of the project; grouped, they are drawn as one: mean and deviation."""
    import wandb_workspaces.reports.v2 as wr

    # Every run has its task in the config, and all of a run set have the same.
    groupby = ["config.task.name"] if grouped else []
    return wr.Runset(name=name, filters=f"Metric('ID') in {list(ids)!r}", groupby=groupby)


def curves(data_set: dict[str, Any]) -> wr.PanelGrid:
    """Validation score and training loss with bands over seeds, and the reported score as bars."""
    import wandb_workspaces.reports.v2 as wr

    over_seeds: dict[str, Any] = {"groupby": "task", "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    metric = data_set["metric"]
    panels: list[Any] = [
        wr.LinePlot(title=f"validation {metric}", x=STEP, y=[f"{data_set['watched']}/{metric}"], **over_seeds),
        wr.LinePlot(title="training loss", x=STEP, y=["train/loss"], **over_seeds),
        wr.BarPlot(title=f"{data_set['split']} {metric}", metrics=[f"{data_set['split']}/{metric}"], **over_seeds),
    ]
    sets = [run_set(system, ids, grouped=True) for system, ids in data_set["systems"].items() if ids]
    return wr.PanelGrid(runsets=sets or [wr.Runset()], panels=panels)


def search_grid(search: dict[str, Any]) -> wr.PanelGrid:
    """Parallel coordinates and importance of the parameters, and the score against each."""
    import wandb_workspaces.reports.v2 as wr

    metric, parameters = search["metric"], search["parameters"]
    columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(key), log=log) for key, log in parameters.items()]
    columns.append(wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(metric)))
    panels: list[Any] = [
        wr.ParallelCoordinatesPlot(columns=columns, layout=wr.Layout(w=16, h=8)),
        wr.ParameterImportancePlot(with_respect_to=metric, layout=wr.Layout(w=8, h=8)),
    ]
    for key, log in parameters.items():
        panels.append(wr.ScatterPlot(title=key, x=wr.Config(key), y=wr.SummaryMetric(metric), log_x=log))
    return wr.PanelGrid(runsets=[run_set(search["name"], search["runs"])], panels=panels)


def run_list(content: dict[str, Any], entity: str) -> wr.UnorderedList:
    """Every run with its folder and, where it is on W&B, a link to it."""
    import wandb
    import wandb_workspaces.reports.v2 as wr

    items: list[Any] = []
    base = str(wandb.setup().settings.app_url).rstrip("/")
    for run in content["runs"]:
        said = f" ({run['status']})"
        if run["id"] is None:
            items.append([wr.InlineCode(run["folder"]), f"{said}, not on W&B"])
        elif run["elsewhere"]:
            items.append([wr.InlineCode(run["folder"]), f"{said}, W&B run {run['id']}"])
        else:
            url = f"{base}/{entity}/{content['project']}/runs/{run['id']}"
            items.append([wr.Link(text=run["id"], url=url), said + " ", wr.InlineCode(run["folder"])])
    return wr.UnorderedList(items=items)


if __name__ == "__main__":
    try:
        print(publish(Path(sys.argv[1])))
    except UserError as error:
        sys.exit(f"research: {error}")
