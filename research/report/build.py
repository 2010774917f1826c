"""A report from run folders: tables, statistics, figures, error analysis, checklist, page; and whether it still holds.

tables/       scores.tex .md .html .csv, and the evidence as CSV
figures/      PDF, and PNG beside it
errors/       slices, error types, examples as CSV
page.tex      a document around the table and the figures: pdflatex compiles it
checklist.md  index.html  manifest.json  wandb_report.yaml (with --wandb)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from research.common.errors import UserError
from research.common.text import printable
from research.report import manifest
from research.report.checklist.items import write_checklist
from research.report.error_analysis.tables import ErrorAnalysis, analyse_errors
from research.report.findings import findings
from research.report.grouping import group_runs
from research.report.groups import Grid
from research.report.output import written_report
from research.report.records import ChangedRun, Record, read_records, status_counts
from research.report.render import html, latex, scores, wandb
from research.report.statistics.baselines import baselines
from research.report.statistics.summary import pools, summarise
from research.report.tables.cells import file_name, write_table_csv
from research.report.tables.labels import label_tables
from research.report.tables.scores import main_table
from research.report.tables.statistics import statistics_tables
from research.report.tables.transfer import transfer_tables

MOST_FIGURES = 6  # of page.tex


def build(
    runs: Sequence[str | Path],
    folder: Path,
    *,
    by: Sequence[str] | None = None,
    metric: str | None = None,
    publish: bool = False,
) -> None:
    """Write the report of the runs to a folder and print its table and what could not be computed.

    `publish` saves it as a draft at Weights & Biases too.
    """
    records = read_records(runs)
    grid = group_runs(records, by, metric)
    command = ["research", *sys.argv[1:]]
    with written_report(folder, manifest.earlier_files(folder)) as scratch:
        numbers, page = analyse_runs(records, grid, scratch)
        page = replace(page, title=folder.absolute().name, command=command)
        page = add_figures(records, grid, scratch, page)
        html.write_page(scratch, page, folder)
        markdown = scores.scores_markdown(page.scores[0])
        if publish:
            wandb.write_recipe(records, grid, markdown, scratch, page.title)
        options: manifest.Options = {"by": by, "metric": metric}
        manifest.write_manifest(scratch, folder, command, options, records, numbers)
    print(markdown)
    for note in (*page.notes, *page.errors.notes):
        print(f"Note: {note}")
    states = ", ".join(f"{count} {state}" for state, count in status_counts(records).items())
    print(f"{len(records)} runs ({states}); report: {folder / html.NAME}")
    if publish:  # last: whatever W&B answers, the report is complete
        print(f"W&B draft: {wandb.publish(folder / wandb.NAME)}")


def analyse_runs(records: Sequence[Record], grid: Grid, folder: Path) -> tuple[list[manifest.Number], html.Page]:
    """Everything of a report that is a number, written to the folder, listed for the manifest and made a page."""
    pooled, notes = pools(grid)
    summaries, lowest = summarise(grid, pooled), baselines(grid)
    notes = [printable(note) for note in (*notes, *findings(grid, pooled, summaries, lowest))]
    scores.write_scores(grid, summaries, folder / "tables", lowest)
    statistics = [*statistics_tables(grid, summaries, pooled), *transfer_tables(records), *label_tables(records)]
    for table in statistics:
        write_table_csv(table, folder / "tables" / f"{file_name(table.title)}.csv")
    (folder / "errors").mkdir(exist_ok=True)
    try:
        errors = analyse_errors(grid, folder / "errors")
    except UserError as error:
        errors = ErrorAnalysis(notes=[f"No error analysis. {error}"])
    page = html.Page(
        records=records,
        scores=[main_table(grid, summaries, lowest)],
        significance=statistics,
        errors=errors,
        checklist=write_checklist(records, grid, folder),
        notes=notes,
    )
    tables = [*page.significance, *page.errors.tables, *page.checklist.tables]
    return list(manifest.numbers(summaries, lowest, tables)), page


def add_figures(records: Sequence[Record], grid: Grid, folder: Path, page: html.Page) -> html.Page:
    """Draw the figures and write the document that sets them beside the table; returns the page with them."""
    from research.report.figures import draw_figures  # matplotlib takes a second, which a check need not wait for

    notes = list(page.notes)
    try:
        drawn = draw_figures(grid, records, folder / "figures")
    except UserError as error:
        drawn = {}
        notes.append(f"No figures. {error}")
    set_beside = {f"figures/{path.name}": caption for path, caption in list(drawn.items())[:MOST_FIGURES]}
    table = (folder / "tables" / "scores.tex").read_text(encoding="utf-8")
    (folder / "page.tex").write_text(latex.latex_document([table], set_beside), encoding="utf-8")
    return replace(page, figures=drawn, notes=notes)


def check(folder: Path) -> int:
    """Print which numbers of a report no longer follow from its runs; exit code 0 where all do, else 1."""
    written = manifest.read_manifest(folder)
    changed = manifest.changed_runs(written, folder)
    faults = [fault for found in changed for fault in found] + manifest.changed_files(written, folder)
    there = [path for path in manifest.run_paths(written, folder) if (path / "config.yaml").is_file()]
    now: dict[str, float] | None = {}
    try:
        now = numbers_now(there, written.options) if there else {}
    except ChangedRun as error:
        now = None
        faults.append(str(error))
    except UserError as error:
        faults.append(f"the numbers cannot be computed again: {error}")
    faults += manifest.wrong_numbers(written, now, changed)
    for fault in faults:
        print(fault)
    print(f"{folder}: {len(written.numbers)} numbers of {len(written.runs)} runs checked, {len(faults)} faults")
    return 1 if faults else 0


def numbers_now(runs: Sequence[Path], options: manifest.Options) -> dict[str, float]:
    """The numbers of a report as its runs give them today, by what they are."""
    records = read_records(runs)
    grid = group_runs(records, options["by"], options["metric"])
    with TemporaryDirectory() as scratch:
        numbers, _ = analyse_runs(records, grid, Path(scratch))
    return {what: value for what, value, _ in numbers}
