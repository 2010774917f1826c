"""The main table, systems x data sets, as LaTeX, Markdown, HTML and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from research.config.load import completed
from research.report.deciding_settings import deciding_settings
from research.report.groups import Grid, RunGroup
from research.report.settings import column_text, columns_of, key_text, value_text
from research.report.statistics.baselines import Baseline
from research.report.statistics.summary import ALPHA, Summary
from research.report.tables.cells import Cell, Table

ALWAYS_TOLD = ("model.name", "optim.lr", "optim.batch_size", "optim.epochs", "data.max_length")
TIED = "†"
KNOWING_NOTHING = "Last rows: what answers score that know nothing of the text."


def main_table(grid: Grid, summaries: Sequence[Summary], lowest: Sequence[Baseline] = ()) -> Table:
    """Rows of cells as all formats show them, the baselines last; `mark` says best and tied."""
    named = columns_of(grid.by)
    columns = [head for head, _ in named]
    columns += ["runs", *(f"{head} {split}" for _, split, head in score_columns(grid, summaries))]
    rows = []
    for settings in grid.systems:
        texts = grid.texts(settings)
        cells = []
        for _, keys in named:
            value = settings[keys[0]] if len(keys) == 1 else None
            cells.append(Cell(column_text(keys, texts), value if is_number(value) else None))
        cells.append(_runs_cell(grid, settings))
        for data_set, split, _ in score_columns(grid, summaries):
            found = [s for s in summaries if s.group is grid.find(settings, data_set) and s.split == split]
            cells.append(_score_cell(found[0]) if found else Cell("–"))
        rows.append(cells)
    rows += baseline_rows(grid, summaries, lowest)
    return Table("Scores", columns, rows, f"{caption(grid, summaries)} {KNOWING_NOTHING if lowest else ''}".strip())


def baseline_rows(grid: Grid, summaries: Sequence[Summary], lowest: Sequence[Baseline]) -> list[list[Cell]]:
    """A row for each kind of baseline, its scores under those of the systems."""
    rows = []
    for name in dict.fromkeys(b.name for b in lowest):
        cells = [Cell(name), *(Cell("") for _ in columns_of(grid.by))]
        for data_set, split, _ in score_columns(grid, summaries):
            of = [b for b in lowest if b.name == name and (b.group.data_set, b.split) == (data_set, split)]
            cells.append(Cell(score_text(of[0].value, None), of[0].value, of[0].group.paths) if of else Cell("–"))
        rows.append(cells)
    return rows


def score_columns(grid: Grid, summaries: Sequence[Summary]) -> list[tuple[str, str, str]]:
    """(data set, split, data set and metric) of each score column: validation, then test where there is one."""
    columns: list[tuple[str, str, str]] = []
    for data_set in grid.data_sets:
        splits = [s.split for s in summaries if s.group.data_set == data_set and len(s.scores)]
        for split in ("validation", "test"):
            if split in splits:
                group = next(group for group in grid.groups if group.data_set == data_set and group.metric)
                columns.append((data_set, split, f"{data_set} {group.score.label}"))
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
    return f"{100 * mean:z.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


# --- the caption --------------------------------------------------------------------------------------


def caption(grid: Grid, summaries: Sequence[Summary]) -> str:
    """What the numbers are, over how many runs, what is the same in all of them, and what is missing."""
    return " ".join(
        filter(None, (_what(grid, summaries), _marks(summaries), _constant(grid), absent(grid), _seeds(grid)))
    )


def _what(grid: Grid, summaries: Sequence[Summary]) -> str:
    splits = {summary.split for summary in summaries if len(summary.scores)}
    single = all(len(group.runs) <= 1 for group in grid.groups)
    folds = "folds" if all(group.folds for group in grid.groups if group.runs) else "folds or seeds"
    over = folds if any(group.folds for group in grid.groups) else "runs with different seeds"
    if any(len(group.samples) > 1 for group in grid.groups):
        over = "few-shot samples, each the mean over its seeds"
    spread = "single run" if single else f"mean ± standard deviation over {over}"
    beside = ", test beside the validation score that selected the checkpoint" if "test" in splits else ""
    return f"Scores in per cent ({spread}){beside}."


def _marks(summaries: Sequence[Summary]) -> str:
    if not any(summary.mark == "best" for summary in summaries):
        return ""
    if not any(summary.p_value is not None for summary in summaries):
        return "Bold: best."
    over = {summary.interval.over for summary in summaries if summary.interval}
    if over == {"folds"}:
        return (
            f"Bold: best; {TIED}: not significantly worse than the best (corrected resampled t test over folds, "
            f"Holm-corrected, p ≥ {ALPHA:g})."
        )
    by = min(over) if len(over) == 1 else "examples; seeds too where both have several runs"
    return (
        f"Bold: best; {TIED}: not significantly worse than the best (paired bootstrap over {by}, Holm-corrected, "
        f"p ≥ {ALPHA:g})."
    )


def _constant(grid: Grid) -> str:
    """The settings all runs share, as far as they are away from the default or everybody asks for them."""
    facts = [_fact(k, v) for k, v in _away_from_default(grid, grid.constant, grid.groups[0].task) if _is_reported(k)]
    shared = f"All runs: {', '.join(facts)}." if facts else ""
    tasks = {group.data_set: group.task for group in grid.groups}
    away = {k for name, own in grid.by_data_set.items() for k, _ in _away_from_default(grid, own, tasks[name])}
    apart = [
        f"{data_set}: {', '.join(own)}"
        for data_set, settings in grid.by_data_set.items()
        if (own := [_fact(key, value) for key, value in settings.items() if key in away and _is_reported(key)])
    ]
    return " ".join(filter(None, (shared, f"By data set: {'; '.join(apart)}." if apart else "")))


def _is_reported(key: str) -> bool:
    """All but what each of several tasks is: the data set's name says it."""
    return not key.startswith("task.tasks.")


def _fact(key: str, value: Any) -> str:
    return f"{key_text(key)} {value_text(value)}" if key != "model.name" else value_text(value)


def _away_from_default(grid: Grid, settings: Mapping[str, Any], task: str) -> list[tuple[str, Any]]:
    """Those of the settings that are not the default, and those everybody asks for; no epochs where steps are given."""
    adapter = grid.constant.get("adapter.name", "full")
    defaults = deciding_settings(completed({"task": task, "adapter": adapter}, "the report"))
    defaults["adapter.name"] = "full"
    steps = {**grid.constant, **settings}.get("optim.max_steps")
    by_steps = all(group.settings.get("optim.max_steps", steps) is not None for group in grid.groups)
    idle = {"optim.epochs"} if by_steps else set()
    return [(k, v) for k, v in settings.items() if k not in idle and (k in ALWAYS_TOLD or v != defaults.get(k))]


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


def _named(runs: Sequence[tuple[RunGroup, int]]) -> str:
    """`lr 3e-5 on wnut17: seed 3`, at most three of them."""
    named = [f"{group.system} on {group.data_set}, seed {seed}" for group, seed in runs[:3]]
    return "; ".join(named) + (f"; and {len(runs) - 3} more" if len(runs) > 3 else "")


def _seeds(grid: Grid) -> str:
    seeds = sorted({run.seed for group in grid.groups for run in group.runs})
    if not seeds:
        return ""
    return f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(ranges(seeds))}."


def ranges(numbers: Sequence[int]) -> list[str]:
    """Sorted integers, three or more neighbours as `0–24`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [text for run in runs for text in ([f"{run[0]}–{run[-1]}"] if len(run) > 2 else map(str, run))]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
