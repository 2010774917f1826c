"""The main table, systems x data sets, as LaTeX, Markdown, HTML and CSV."""

from __future__ import annotations

import csv
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from research.common.files import written_whole
from research.config.schema import Config, ModelConfig, to_dict
from research.report.groups import Grid, Group, deciding, shown
from research.report.render import latex
from research.report.statistics.summary import ALPHA, Summary
from research.report.tables import cells as content
from research.report.tables.cells import Cell

METRIC_NAMES = {"f1": "F1", "exact_match": "EM", "accuracy": "accuracy", "mcc": "MCC", "strict_f1": "strict F1"}
ALWAYS_TOLD = ("model.name", "optim.lr", "optim.batch_size", "optim.epochs", "data.max_length")
TIED = "†"


def metric_name(metric: str) -> str:
    return METRIC_NAMES.get(metric, metric.replace("_", " "))


def main_table(grid: Grid, summaries: Sequence[Summary]) -> content.Table:
    """Rows of cells as all formats show them; `mark` says best and tied."""
    columns = [key.split(".")[-1].replace("_", " ") for key in grid.by]
    columns += ["runs", *(f"{head} {split}" for _, split, head in score_columns(grid, summaries))]
    rows = []
    for settings in grid.systems:
        cells = [Cell(shown(value), value if _is_number(value) else None) for value in settings.values()]
        cells.append(_runs_cell(grid, settings))
        for data_set, split, _ in score_columns(grid, summaries):
            found = [s for s in summaries if s.group is grid.find(settings, data_set) and s.split == split]
            cells.append(_score_cell(found[0]) if found else Cell("–"))
        rows.append(cells)
    return content.Table("Scores", columns, rows, caption(grid, summaries))


def score_columns(grid: Grid, summaries: Sequence[Summary]) -> list[tuple[str, str, str]]:
    """(data set, split, data set and metric) of each score column: validation, then test where there is one."""
    columns: list[tuple[str, str, str]] = []
    for data_set in grid.data_sets:
        splits = [s.split for s in summaries if s.group.data_set == data_set and len(s.scores)]
        for split in ("validation", "test"):
            if split in splits:
                group = next(group for group in grid.groups if group.data_set == data_set and group.metric)
                columns.append((data_set, split, f"{data_set} {metric_name(group.metric)}"))
    return columns


def _runs_cell(grid: Grid, settings: Mapping[str, Any]) -> Cell:
    """`5`, or `5/4/5` where data sets differ."""
    groups = [grid.find(settings, data_set) for data_set in grid.data_sets]
    counts = [len(group.runs) if group else 0 for group in groups]
    text = str(counts[0]) if len(set(counts)) == 1 else "/".join(map(str, counts))
    return Cell(text, float(sum(counts)), tuple(run.path for group in groups if group for run in group.runs))


def _score_cell(summary: Summary) -> Cell:
    if summary.mean is None:
        return Cell("–")
    paths = tuple(run.path for run in summary.group.runs)
    return Cell(score_text(summary.mean, summary.deviation), summary.mean, paths, summary.mark)


def score_text(mean: float, deviation: float | None) -> str:
    """A fraction in per cent, `84.3 ± 0.4`; without a deviation for a single run."""
    return f"{100 * mean:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


# --- the caption --------------------------------------------------------------------------------------


def caption(grid: Grid, summaries: Sequence[Summary]) -> str:
    """What the numbers are, over how many runs, what is the same in all of them, and what is missing."""
    return " ".join(
        filter(None, (_what(grid, summaries), _marks(summaries), _constant(grid), absent(grid), _seeds(grid)))
    )


def _what(grid: Grid, summaries: Sequence[Summary]) -> str:
    splits = {summary.split for summary in summaries if len(summary.scores)}
    single = all(len(group.runs) <= 1 for group in grid.groups)
    spread = "single run" if single else "mean ± standard deviation over runs with different seeds"
    beside = ", test beside the validation score that selected the checkpoint" if "test" in splits else ""
    return f"Scores in per cent ({spread}){beside}."


def _marks(summaries: Sequence[Summary]) -> str:
    if not any(summary.mark == "best" for summary in summaries):
        return ""
    if not any(summary.p_value is not None for summary in summaries):
        return "Bold: best."
    over = {summary.interval.over for summary in summaries if summary.interval}
    by = "seeds and examples" if over == {"examples and seeds"} else "examples; seeds too where both have several runs"
    return (
        f"Bold: best; {TIED}: not significantly worse than the best (paired bootstrap over {by}, Holm-corrected, "
        f"p ≥ {ALPHA:g})."
    )


def _constant(grid: Grid) -> str:
    """The settings all runs share, as far as they are away from the default or everybody asks for them."""
    facts = [_fact(key, value) for key, value in grid.constant.items() if _worth_telling(key, value)]
    told = f"All runs: {', '.join(facts)}." if facts else ""
    apart = [
        f"{data_set}: {', '.join(_fact(key, value) for key, value in settings.items())}"
        for data_set, settings in grid.by_data_set.items()
        if settings
    ]
    return " ".join(filter(None, (told, f"By data set: {'; '.join(apart)}." if apart else "")))


def _fact(key: str, value: Any) -> str:
    return f"{key.split('.')[-1].replace('_', ' ')} {shown(value)}" if key != "model.name" else shown(value)


_DEFAULTS = deciding(to_dict(Config(task="", model=ModelConfig(name=""))))


def _worth_telling(key: str, value: Any) -> bool:
    return key in ALWAYS_TOLD or value != _DEFAULTS.get(key)


def absent(grid: Grid) -> str:
    """Runs that are not in the means: unfinished, pruned, failed and missing ones, each counted."""
    counts = []
    for state in ("unfinished", "pruned", "failed"):
        runs = [(g, r) for g in grid.groups for r in g.others if r.status == state]
        if runs:
            counts.append(f"{len(runs)} {state} ({_named([(g, r.seed) for g, r in runs])})")
    missing = [(group, seed) for group in grid.groups for seed in group.missing]
    if missing:
        counts.append(f"{len(missing)} missing ({_named(missing)})")
    cells = len(grid.systems) * len(grid.data_sets) - len(grid.groups)
    if cells:
        counts.append(f"{cells} of {len(grid.systems) * len(grid.data_sets)} combinations never run")
    return f"Not in the means: {'; '.join(counts)}." if counts else ""


def _named(runs: Sequence[tuple[Group, int]]) -> str:
    """`lr 3e-5 on wnut17: seed 3`, at most three of them."""
    named = [f"{group.system} on {group.data_set}, seed {seed}" for group, seed in runs[:3]]
    return "; ".join(named) + (f"; and {len(runs) - 3} more" if len(runs) > 3 else "")


def _seeds(grid: Grid) -> str:
    seeds = sorted({run.seed for group in grid.groups for run in group.runs})
    if not seeds:
        return ""
    return f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(ranges(seeds))}."


def ranges(numbers: Sequence[int]) -> list[str]:
    """Sorted whole numbers, three or more neighbours as `0–24`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [text for run in runs for text in ([f"{run[0]}–{run[-1]}"] if len(run) > 2 else map(str, run))]


# --- the formats --------------------------------------------------------------------------------------


def write(grid: Grid, summaries: Sequence[Summary], folder: Path) -> list[Path]:
    """`scores.tex`, `scores.md`, `scores.html` and `scores.csv` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    table = main_table(grid, summaries)
    texts = {
        "scores.tex": latex.table(table, heads(grid, summaries), "tab:scores"),
        "scores.md": markdown(table),
        "scores.html": html_table(table),
    }
    for name, text in texts.items():
        with written_whole(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    with written_whole(folder / "scores.csv") as temporary:
        write_csv(grid, summaries, temporary)
    return [folder / name for name in (*texts, "scores.csv")]


def heads(grid: Grid, summaries: Sequence[Summary]) -> list[tuple[str, int]]:
    """What spans the columns in a first line of heads, and how many columns each spans."""
    spans: dict[str, int] = {}
    for _, _, head in score_columns(grid, summaries):
        spans[head] = spans.get(head, 0) + 1
    return [("", len(grid.by) + 1), *spans.items()]


def markdown(table: content.Table) -> str:
    marks = {"best": "**{}**", "tied": "{}" + TIED, "": "{}"}
    rows = [[Cell(marks[cell.mark].format(cell.text)) for cell in row] for row in table.rows]
    marked = content.Table(table.title, table.columns, rows)
    return f"{content.markdown(marked)}\n{html.escape(table.caption, quote=False)}\n"


def html_table(table: content.Table) -> str:
    """One `<table>`, everything escaped, for any page."""
    marks = {"best": "<strong>{}</strong>", "tied": "{}" + TIED, "": "{}"}
    head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{marks[cell.mark].format(html.escape(cell.text))}</td>" for cell in row) + "</tr>\n"
        for row in table.rows
    )
    caption = html.escape(table.caption)
    return f"<table>\n<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n"


def write_csv(grid: Grid, summaries: Sequence[Summary], path: Path) -> None:
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
            settings = [value if _is_number(value) else shown(value) for value in s.group.settings.values()]
            writer.writerow([*settings, s.group.data_set, s.split, s.group.metric, *numbers])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
