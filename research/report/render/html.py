"""`index.html`: the report as one file that needs no network; every number leads to its runs.

The looks and the behaviour are in `templates/`: page.html, page.css, page.js.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from research.common.files import write_atomically
from research.common.text import unbroken
from research.report.checklist.items import Checklist
from research.report.error_analysis.tables import ErrorAnalysis
from research.report.records import Record, status_counts
from research.report.settings import value_text
from research.report.tables import provenance
from research.report.tables.cells import Cell, Table, cell, file_name, per_cent

NAME = "index.html"
TEMPLATES = Path(__file__).parent / "templates"
LONGEST_TEXT = 240  # characters of a cell that are shown before it has to be opened
LONGEST_LINE = 28  # characters of a cell that are never broken
MOST_OPEN_ROWS = 25  # a longer table is closed until it is asked for


@dataclass(frozen=True)
class Page:
    """What the page shows, from the other parts of the report."""

    records: Sequence[Record]  # all of them
    title: str = ""
    command: Sequence[str] = ()  # that made the report
    scores: Sequence[Table] = ()
    significance: Sequence[Table] = ()
    figures: Mapping[Path, str] = field(default_factory=dict)  # PDF with a PNG beside it -> caption
    errors: ErrorAnalysis = field(default_factory=ErrorAnalysis)
    checklist: Checklist = field(default_factory=Checklist)
    notes: Sequence[str] = ()  # what could not be done, and why


def write_page(folder: Path, page: Page, place: Path | None = None) -> Path:
    """Write `index.html` into a folder and return its path.

    `place` is the report's later folder, if it is another: links to run folders are relative to it.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    places = {record.path: number for number, record in enumerate(page.records)}
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=lambda value: unbroken(value) if type(value) is str else value,
    )  # fmt: skip
    environment.filters["runs"] = lambda each: [places[path] for path in each.runs if path in places]
    environment.filters["folder"] = lambda each: link(each.runs[0], place or folder)
    environment.globals |= {
        "longest_text": LONGEST_TEXT, "longest_line": LONGEST_LINE, "most_open_rows": MOST_OPEN_ROWS,
    }  # fmt: skip
    text = environment.get_template("page.html").render(
        page=page,
        states=status_counts(page.records),
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
        figures=list(figures(folder, page.figures)),
        runs=runs_table(page.records),
        name=file_name,
    )
    path = folder / NAME
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def figures(folder: Path, drawn: Mapping[Path, str]) -> Iterator[dict[str, str]]:
    """Each figure as a data URI of its PNG, with a link to its PDF."""
    for path, caption in drawn.items():
        image = base64.b64encode(path.with_suffix(".png").read_bytes()).decode()
        yield {"source": f"data:image/png;base64,{image}", "caption": caption, "pdf": link(path, folder)}


def runs_table(records: Sequence[Record]) -> Table:
    """One row a run, in the order of the records; the page gives each row its number."""
    columns = ("run", "data set", "model", "seed", "ended", "validation", "test", "device hours", "started", "commit")
    rows = [[Cell(run_name(record), None, (record.path,)), *map(cell, _run_row(record))] for record in records]
    return Table("Runs", columns, rows)


def _run_row(record: Record) -> Iterator[Any]:
    first: dict[str, Any] = next(iter(record.provenance.get("attempts", [])), {})
    yield record.data_set
    yield value_text(record.config["model"]["name"])
    yield record.seed
    yield record.status
    for split in ("validation", "test"):
        yield per_cent(record.scores(split).get(record.monitor))
    yield provenance.cost(record).get("device_hours")
    yield str(first.get("started", ""))[:16].replace("T", " ")
    yield ((first.get("code") or {}).get("commit") or "")[:10]


def run_name(record: Record) -> str:
    """The last two folders of its path."""
    return "/".join(record.path.absolute().parts[-2:])


def link(path: Path, folder: Path) -> str:
    """A relative link from the report to a file or folder."""
    return quote(os.path.relpath(path.absolute(), folder.absolute()))
