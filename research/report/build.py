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
from research.common.files import written_whole
from research.report import manifest
from research.report.checklist import items as checklist
from research.report.error_analysis import tables as errors
from research.report.groups import Grid, group
from research.report.records import Record, read, status_counts
from research.report.render import html as page
from research.report.render import latex
from research.report.render import wandb as wandb_report
from research.report.statistics.summary import Summary, pools, summarise
from research.report.tables import cells as content
from research.report.tables import scores as tables
from research.report.tables import statistics as evidence

MOST_FIGURES = 6  # of page.tex


def build(
    runs: Sequence[str | Path],
    folder: Path,
    *,
    by: Sequence[str] | None = None,
    metric: str | None = None,
    wandb: bool = False,
) -> None:
    """Write the report of the runs to a folder and print its table and what could not be told."""
    records = read(runs)
    grid = group(records, by, metric)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {folder} cannot be written: {error.strerror or error}.") from None
    command = ["research", *sys.argv[1:]]
    summaries, shown = analyse(records, grid, folder, command)
    shown = draw(records, grid, folder, shown)
    page.write(folder, shown)
    markdown = tables.markdown(tables.main_table(grid, summaries))
    recipe = wandb_report.write(records, grid, markdown, folder) if wandb else None
    options = {"by": by, "metric": metric}
    manifest.write(folder, command, options, records, _numbers(summaries, shown))
    print(markdown)
    for note in (*shown.notes, *shown.errors.get("notes", ())):
        print(f"Note: {note}")
    states = ", ".join(f"{count} {state}" for state, count in status_counts(records).items())
    print(f"{len(records)} runs ({states}); report: {folder / page.NAME}")
    if recipe is not None:  # last: whatever W&B says to it, the report is whole
        print(f"W&B draft: {wandb_report.publish(recipe)}")


def analyse(
    records: Sequence[Record], grid: Grid, folder: Path, command: Sequence[str]
) -> tuple[list[Summary], page.Content]:
    """Everything of a report that is a number, written to the folder and returned for the page."""
    pooled, notes = pools(grid)
    summaries = summarise(grid, pooled)
    tables.write(grid, summaries, folder / "tables")
    proof = evidence.tables(grid, summaries, pooled)
    for table in proof:
        content.write_csv(table, folder / "tables" / f"{content.file_name(table.title)}.csv")
    (folder / "errors").mkdir(exist_ok=True)
    try:
        analysed = errors.analyse(grid, folder / "errors")
    except UserError as error:
        analysed = {"sections": {}, "notes": [f"No error analysis. {error}"]}
    shown = page.Content(
        title=folder.absolute().name,
        command=command,
        records=records,
        scores=[tables.main_table(grid, summaries)],
        significance=proof,
        errors=analysed,
        checklist=checklist.answer(records, grid, folder),
        notes=notes,
    )
    return summaries, shown


def draw(records: Sequence[Record], grid: Grid, folder: Path, shown: page.Content) -> page.Content:
    """Add the figures, and the document that sets them beside the table."""
    from research.report import figures  # matplotlib takes a second, which a check need not wait for

    notes = list(shown.notes)
    try:
        drawn = figures.draw(grid, records, folder / "figures")
    except UserError as error:
        drawn = {}
        notes.append(f"No figures. {error}")
    set_beside = {f"figures/{path.name}": caption for path, caption in list(drawn.items())[:MOST_FIGURES]}
    with written_whole(folder / "page.tex") as temporary:
        table = (folder / "tables" / "scores.tex").read_text(encoding="utf-8")
        temporary.write_text(latex.document([table], set_beside), encoding="utf-8")
    return replace(shown, figures=drawn, notes=notes)


def check(folder: Path) -> int:
    """Say which numbers of a report no longer follow from its runs; exit code 0 where all do, else 1."""
    told = manifest.read(folder)
    changed = manifest.changed_runs(told, folder)
    faults = [fault for found in changed for fault in found] + manifest.changed_files(told, folder)
    there = [path for path in manifest.run_paths(told, folder) if (path / "config.yaml").is_file()]
    now: dict[str, float] = {}
    if there:
        try:
            now = numbers_now(there, told["options"])
        except UserError as error:
            faults.append(f"the numbers cannot be computed again: {error}")
    faults += manifest.wrong_numbers(told, now, changed)
    for fault in faults:
        print(fault)
    count = len(told["numbers"])
    print(f"{folder}: {count} numbers of {len(told['runs'])} runs checked, {len(faults)} faults")
    return 1 if faults else 0


def numbers_now(runs: Sequence[Path], options: dict[str, object]) -> dict[str, float]:
    """The numbers of a report as its runs give them today, by what they are."""
    records = read(runs)
    grid = group(records, options["by"], options["metric"])  # type: ignore[arg-type]
    with TemporaryDirectory() as scratch:
        summaries, shown = analyse(records, grid, Path(scratch), [])
    return {what: value for what, value, _ in _numbers(summaries, shown)}


def _numbers(summaries: Sequence[Summary], shown: page.Content) -> list[manifest.Number]:
    analysed = [table for section in shown.errors["sections"].values() for table in section]
    others = [*shown.significance, *analysed, *page.checklist_tables(shown.checklist)]
    return list(manifest.numbers(summaries, others))
