"""The main table in its four formats, and a caption that leaves nothing out."""

import csv
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from research.report.grouping import group_runs
from research.report.groups import Grid
from research.report.records import read_records
from research.report.render import latex
from research.report.render import scores as render
from research.report.statistics.summary import Summary, pools, summarise
from research.report.tables import scores as tables
from tests.report.render.test_latex import compile_tex, needs_latex

MakeRun = Callable[..., Path]


def made(path: Path) -> tuple[Grid, list[Summary]]:
    grid = group_runs(read_records([path]))
    return grid, summarise(grid, pools(grid)[0])


def test_columns_rows_and_links(grid: Path) -> None:
    table = tables.main_table(*made(grid))
    assert list(table.columns) == [
        "lr", "runs", "news micro F1 validation", "news micro F1 test", "reviews accuracy validation",
        "reviews accuracy test", "wiki token F1 validation", "wiki token F1 test",
    ]  # fmt: skip
    assert [row[0].text for row in table.rows] == ["3e-5", "1e-4"]
    assert [row[1].text for row in table.rows] == ["5", "5"]
    cell = table.rows[0][3]
    scores = [json.loads((path / "result.json").read_text())["metrics"]["test"]["f1"] for path in cell.runs]
    assert len(scores) == 5 and cell.value == pytest.approx(sum(scores) / 5)
    assert cell.text.startswith(f"{100 * cell.value:.1f} ± ")
    assert {row[3].mark for row in table.rows} == {"best", ""} or {row[3].mark for row in table.rows} == {
        "best",
        "tied",
    }


def test_the_caption_says_what_is_constant_and_how_marks_were_made(grid: Path) -> None:
    caption = tables.main_table(*made(grid)).caption
    assert caption.startswith(
        "Scores in per cent (mean ± standard deviation over runs with different seeds), test beside"
    )
    assert "Bold: best; †: not significantly worse than the best (paired bootstrap over examples and seeds" in caption
    assert "All runs: encoder-a, " in caption and "batch size 32" in caption and "epochs 3" in caption
    assert "Seeds 0–4." in caption
    assert "Not in the means" not in caption
    assert "By data set" not in caption  # which differ in keys of their tasks alone, all at their defaults


def test_the_caption_has_no_epochs_where_steps_are_given(make_run: MakeRun) -> None:
    steps = {"optim.epochs": 5.0, "optim.max_steps": 60}
    caption = tables.main_table(*made(make_run(None, config=steps))).caption
    assert "max steps 60" in caption and "epochs" not in caption


def test_the_caption_counts_what_is_not_in_the_means(make_run: MakeRun, tmp_path: Path) -> None:
    for rate in (1e-5, 2e-5):
        for seed in range(4):
            states = {(1e-5, 1): "failed", (1e-5, 2): "pruned", (2e-5, 0): "unfinished"}
            if (rate, seed) != (2e-5, 3):
                make_run(None, seed=seed, status=states.get((rate, seed), "finished"), config={"optim.lr": rate})
    make_run(None, data_set="news", task="ner", config={"optim.lr": 1e-5})
    caption = tables.main_table(*made(tmp_path)).caption
    assert "1 unfinished (lr 2e-5 on reviews, seed 0)" in caption
    assert "1 pruned (lr 1e-5 on reviews, seed 2); 1 failed (lr 1e-5 on reviews, seed 1)" in caption
    assert (
        "4 missing (lr 1e-5 on news, seed 1; lr 1e-5 on news, seed 2; lr 1e-5 on news, seed 3; and 1 more)" in caption
    )
    assert "1 of 4 combinations never run" in caption


def test_the_caption_is_short_for_several_tasks_and_empty_settings(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", config={"task.tasks": {"sst2": {"data": {"train": "sst2.jsonl"}}}, "task.query_prefix": ""})
    caption = tables.main_table(*made(tmp_path)).caption
    assert "sst2" not in caption and "query prefix none" in caption


def test_a_single_run_is_called_one(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", seed=7)
    table = tables.main_table(*made(tmp_path))
    assert "single run" in table.caption and "Seed 7." in table.caption
    assert "±" not in "".join(cell.text for row in table.rows for cell in row)


def test_csv_has_full_numbers_and_counts(grid: Path, tmp_path: Path) -> None:
    parts = made(grid)
    render.write_scores(*parts, tmp_path / "out")
    with open(tmp_path / "out" / "scores.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 12
    line = next(x for x in lines if x["data_set"] == "wiki" and x["split"] == "test" and float(x["optim.lr"]) == 3e-5)
    summary = next(s for s in parts[1] if (s.group.data_set, s.split) == ("wiki", "test"))
    assert float(line["mean"]) == summary.mean and float(line["deviation"]) == summary.deviation
    assert float(line["low"]) < float(line["mean"]) < float(line["high"])
    assert (line["runs"], line["failed"], line["missing"], line["metric"]) == ("5", "0", "0", "f1")


@pytest.mark.slow
def test_markdown_marks_the_best(grid: Path) -> None:
    text = render.scores_markdown(tables.main_table(*made(grid)))
    rows = text.splitlines()
    assert rows[1] == "| --- " * 8 + "|"
    assert sum("**" in row for row in rows[2:4]) >= 1
    assert all(row.count("|") == 9 for row in rows[:4])


def test_hostile_names_are_escaped_everywhere(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", config={"model.name": "<b>_中文|$%&"}, labels=("<i>", "消极"))
    make_run("b", config={"model.name": "plain"}, labels=("<i>", "消极"))
    parts = made(tmp_path)
    table = tables.main_table(*parts)
    assert "<b>" not in render.html_table(table) and "&lt;b&gt;_中文|$%&amp;" in render.html_table(table)
    parser = HTMLParser()
    parser.feed(render.html_table(table))
    assert "&lt;b&gt;\\_中文\\|" in render.scores_markdown(table) or "&lt;b&gt;_中文\\|" in render.scores_markdown(
        table
    )
    tex = latex.latex_table(table, render.heads(*parts), "t")
    assert r"\textless{}b\textgreater{}\_\begin{CJK}{UTF8}{gbsn}中文\end{CJK}\textbar{}\$\%\&" in tex


@pytest.mark.slow
def test_the_table_compiles(grid: Path, tmp_path: Path) -> None:
    needs_latex("booktabs.sty")
    render.write_scores(*made(grid), tmp_path / "out")
    text = (tmp_path / "out" / "scores.tex").read_text(encoding="utf-8")
    (tmp_path / "out" / "page.tex").write_text(latex.latex_document([text]), encoding="utf-8")
    log = compile_tex(tmp_path / "out", "page.tex")
    assert "Output written on page.pdf (1 page" in log.replace("\n", "")


def test_data_sets_without_test_data_stand_beside_those_with(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", splits=("validation",), data_set="sst2")
    make_run("b", task="ner", data_set="news")
    table = tables.main_table(*made(tmp_path))
    assert list(table.columns) == [
        "model",
        "runs",
        "sst2 accuracy validation",
        "news micro F1 validation",
        "news micro F1 test",
    ]
    assert [cell.mark for cell in table.rows[0]] == [""] * 5  # one system alone is no best


def test_neighbouring_seeds_are_written_as_ranges() -> None:
    assert tables.ranges([0, 1, 2, 3, 7, 8, 13, 42, 43, 44]) == ["0–3", "7", "8", "13", "42–44"]
