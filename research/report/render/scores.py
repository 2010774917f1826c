"""The main table written as LaTeX, Markdown, HTML and CSV."""

from __future__ import annotations

import csv
import html
from collections.abc import Sequence
from pathlib import Path

from research.common.files import write_atomically
from research.common.text import unbroken
from research.report.groups import Grid
from research.report.render import latex
from research.report.settings import columns_of
from research.report.statistics.baselines import Baseline
from research.report.statistics.summary import Summary
from research.report.tables.cells import Cell, Table, table_markdown
from research.report.tables.scores import TIED, is_number, main_table, score_columns


def write_scores(grid: Grid, summaries: Sequence[Summary], folder: Path, lowest: Sequence[Baseline] = ()) -> list[Path]:
    """`scores.tex`, `scores.md`, `scores.html` and `scores.csv` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    table = main_table(grid, summaries, lowest)
    texts = {
        "scores.tex": latex.latex_table(table, heads(grid, summaries), "tab:scores"),
        "scores.md": scores_markdown(table),
        "scores.html": html_table(table),
    }
    for name, text in texts.items():
        with write_atomically(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    with write_atomically(folder / "scores.csv") as temporary:
        write_scores_csv(grid, summaries, temporary, lowest)
    return [folder / name for name in (*texts, "scores.csv")]


def heads(grid: Grid, summaries: Sequence[Summary]) -> list[tuple[str, int]]:
    """What spans the columns in a first line of heads, and how many columns each spans."""
    spans: dict[str, int] = {}
    for _, _, head in score_columns(grid, summaries):
        spans[head] = spans.get(head, 0) + 1
    return [("", len(columns_of(grid.by)) + 1), *spans.items()]


def scores_markdown(table: Table) -> str:
    marks = {"best": "**{}**", "tied": "{}" + TIED, "": "{}"}
    rows = [[Cell(marks[cell.mark].format(cell.text)) for cell in row] for row in table.rows]
    marked = Table(table.title, table.columns, rows)
    return f"{table_markdown(marked)}\n{html.escape(table.caption, quote=False)}\n"


def html_table(table: Table) -> str:
    """One `<table>`, everything escaped, for any page."""
    marks = {"best": "<strong>{}</strong>", "tied": "{}" + TIED, "": "{}"}
    head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{marks[cell.mark].format(html.escape(cell.text))}</td>" for cell in row) + "</tr>\n"
        for row in table.rows
    )
    caption = html.escape(unbroken(table.caption))
    return f"<table>\n<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n"


def write_scores_csv(grid: Grid, summaries: Sequence[Summary], path: Path, lowest: Sequence[Baseline] = ()) -> None:
    """One line per system, data set and split, numbers in full."""
    states = ("unfinished", "pruned", "failed")
    columns = ["data_set", "split", "metric", "runs", "mean", "deviation", "low", "high", "p_value", "mark", *states]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*grid.by, *columns, "missing"])
        for s in summaries:
            others = [sum(run.status == state for run in s.group.others) for state in states]
            limits = (s.interval.low, s.interval.high) if s.interval else (None, None)
            numbers = [len(s.scores), s.mean, s.deviation, *limits, s.p_value, s.mark, *others, len(s.group.missing)]
            settings = [v if is_number(v) else s.group.texts[key] for key, v in s.group.settings.items()]
            writer.writerow([*settings, s.group.data_set, s.split, s.group.metric, *numbers])
        for b in lowest:
            names = [b.name, *("" for _ in grid.by[1:])]
            writer.writerow([*names, b.group.data_set, b.split, b.group.metric, "", b.value, *[""] * 9])
