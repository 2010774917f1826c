"""Error analysis from the predictions of the runs: where systems fail, on what, and whether on the same things.

Legend: N examples, R runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from research.metrics.base import BaseMetric
from research.metrics.examples import Examples, Floats
from research.report.error_analysis import slices
from research.report.error_analysis.agreement import agreement
from research.report.error_analysis.cartography import of_run
from research.report.groups import Grid, RunGroup, best_group, leading_groups, left_out_note, runs_with_predictions
from research.report.records import Record
from research.report.statistics.paired_counts import in_order
from research.report.tables.cells import Cell, Table, cell, file_name, make_table, per_cent, write_table_csv
from research.tracking.predictions import known_metric

MOST_SYSTEMS = 6  # of a data set
MOST_EXAMPLES = 15


@dataclass(frozen=True)
class System:
    """A group's runs with their predictions, all in the order of the first one's examples."""

    group: RunGroup
    metric: BaseMetric
    runs: list[Record]
    tables: list[pa.Table]
    examples: list[Examples]

    @property
    def name(self) -> str:
        return self.group.system

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(run.path for run in self.runs)


@dataclass(frozen=True)
class ErrorAnalysis:
    """Tables by section, and what could not be analysed."""

    sections: Mapping[str, Sequence[Table]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def tables(self) -> list[Table]:
        return [table for section in self.sections.values() for table in section]


def analyse_errors(grid: Grid, folder: Path) -> ErrorAnalysis:
    """Tables for the page, by section; each is written to `folder` as CSV too.

    Raises UserError where a predictions file is not the one its run wrote.
    """
    sections: dict[str, list[Table]] = {}
    notes: list[str] = []
    for data_set in grid.data_sets:
        groups = leading_groups(grid, data_set, MOST_SYSTEMS)
        systems = [system for group in groups if (system := load_system(group))]
        if not systems:
            notes.append(f"{data_set}: the runs have no predictions to analyse.")
            continue
        if left_out := left_out_note(len(groups), grid, data_set):
            notes.append(f"Errors of {data_set}:{left_out}")
        chosen = best_group(grid, data_set)
        first = next((system for system in systems if system.group is chosen), systems[0])
        sections.setdefault("Slices", []).append(slice_table(data_set, systems))
        if kinds := error_table(data_set, systems):
            sections.setdefault("Kinds of error", []).append(kinds)
        if not first.metric.has_labels:  # of labels, the worst are those most confidently wrong
            sections.setdefault("Examples", []).append(worst(data_set, first))
        if any(np.isfinite(run.confidence).any() for run in first.examples):
            sections.setdefault("Examples", []).append(confidently_wrong(data_set, first))
        sections.setdefault("Examples", []).extend(selections(data_set, first))
        sections.setdefault("Cartography", []).extend(cartography(data_set, first))
        sections.setdefault("Agreement", []).extend(agreements(data_set, first, systems))
    filled = {name: [each for each in tables if each.rows] for name, tables in sections.items()}
    sections = {name: tables for name, tables in filled.items() if tables}
    folder.mkdir(parents=True, exist_ok=True)
    for tables in sections.values():
        for each in tables:
            write_table_csv(each, folder / f"{file_name(each.title)}.csv")
    return ErrorAnalysis(sections, notes)


def load_system(group: RunGroup) -> System | None:
    """A group with its predictions; None where it has none of a known form."""
    runs = runs_with_predictions(group)
    tables = [run.predictions(group.split) for run in runs]
    metric = known_metric(tables[0]) if runs else None
    if metric is None:
        return None
    ids = tables[0].column("id").to_pylist()
    tables = [in_order(each, ids, str(run.path), str(runs[0].path)) for each, run in zip(tables, runs, strict=True)]
    return System(group, metric, runs, tables, [metric.examples(each) for each in tables])


def slice_table(data_set: str, systems: Sequence[System]) -> Table:
    """The scores of every slice and system."""
    rows: list[list[Any]] = []
    order: dict[tuple[str, str], int] = {}
    for system in systems:
        train = system.runs[0].predictions("train") if "train" in system.runs[0].splits else None
        for each in slices.score_slices(system.tables, train):
            shown = per_cent if math.isfinite(system.metric.score_named(each.metric).high) else cell
            scores = [shown(value, system.paths) for value in (each.score, each.low, each.high)]
            order.setdefault((each.by, each.value), len(order))
            rows.append([each.by, each.value, system.name, each.size, each.metric, *scores])
    columns = ("sliced by", "slice", "system", "size", "metric", "score", "low", "high")
    rows.sort(key=lambda row: order[row[0], row[1]])  # systems side by side
    caption = (
        "Per cent, mean over runs with its 95 % interval over the examples of the slice (Wilson for accuracy, "
        f"percentile bootstrap else). Slices of fewer than {slices.LEAST_EXAMPLES} are left out."
    )
    return make_table(f"Slices of {data_set}", columns, rows, caption)


def error_table(data_set: str, systems: Sequence[System]) -> Table | None:
    """How many of each class went wrong in which way, per run; None for a metric whose errors have no kinds."""
    rows, kinds = [], []
    for system in systems:
        counted = [system.metric.error_kinds(each) for each in system.tables]
        kinds = list(counted[0])
        totals = {kind: sum((each[kind] for each in counted), Counter()) for kind in kinds}
        for name in ["all", *sorted({name for counts in totals.values() for name in counts})]:
            numbers = [sum(c.values()) if name == "all" else c[name] for c in totals.values()]
            shown = [cell(number / len(system.runs), system.paths, decimals=1) for number in numbers]
            rows.append([system.name, name, *shown])
    if not kinds:
        return None
    caption = f"Per run. {systems[0].metric.error_legend}"
    return make_table(f"Kinds of error on {data_set}", ("system", "class", *kinds), rows, caption)


def worst(data_set: str, system: System) -> Table:
    """The examples with the lowest score, mean over runs; where equal, those the runs were surest of."""
    score, sure = (np.mean([getattr(run, name) for run in system.examples], axis=0) for name in ("score", "confidence"))
    order = [int(i) for i in np.lexsort((-sure, score)) if score[i] < 1][:MOST_EXAMPLES]
    rows = [_example_row(system, i, per_cent(float(score[i]), system.paths)) for i in order]
    caption = f"{system.name}: lowest score in per cent, mean over {_runs(len(system.runs))}."
    return make_table(f"Worst examples of {data_set}", ("id", "score", "text", "gold", "prediction"), rows, caption)


def selections(data_set: str, system: System) -> Iterator[Table]:
    """What the metric shows beside the worst, of the system's first run."""
    paths, first = system.paths[:1], system.examples[0]
    for chosen in system.metric.selections(system.tables[0]):
        shown = [(i, cell(float(chosen.numbers[i]), paths, decimals=chosen.decimals)) for i in chosen.rows.tolist()]
        rows = [[first.ids[i], number, first.text[i], first.gold[i], first.prediction[i]] for i, number in shown]
        columns = ("id", chosen.what, "text", "gold", "prediction")
        title = f"{chosen.title} of {data_set}"
        yield make_table(title, columns, rows, f"{system.name}, {system.runs[0].path.name}.")


def confidently_wrong(data_set: str, system: System) -> Table:
    """The examples that most runs get wrong, by how sure those runs are of it."""
    wrong = np.stack([~run.right for run in system.examples])  # (R, N)
    sure = _mean_where(np.stack([run.confidence for run in system.examples]), wrong)
    often = wrong.mean(0) > 0.5
    order = [int(i) for i in np.argsort(-sure, kind="stable") if often[i] and np.isfinite(sure[i])][:MOST_EXAMPLES]
    rows = [_example_row(system, i, per_cent(float(sure[i]), system.paths)) for i in order]
    runs = _runs(len(system.runs))
    caption = f"{system.name}: wrong in most of {runs}, by the mean confidence (per cent) of those that are."
    columns = ("id", "confidence", "text", "gold", "prediction")
    return make_table(f"Most confidently wrong on {data_set}", columns, rows, caption)


def _mean_where(values: Floats, chosen: np.ndarray) -> Floats:
    """Means over runs of (R, N) values where chosen; minus infinity where none is or none is known."""
    chosen = chosen & np.isfinite(values)
    count = chosen.sum(0)
    means: Floats = np.where(chosen, values, 0).sum(0) / np.maximum(count, 1)
    return np.where(count > 0, means, -np.inf)


def _example_row(system: System, i: int, number: Cell) -> list[Any]:
    first = system.examples[0]
    return [first.ids[i], number, first.text[i], first.gold[i], usual([run.prediction[i] for run in system.examples])]


def usual(texts: Sequence[str]) -> str:
    """The most frequent prediction; with several runs, in how many."""
    text, count = Counter(texts).most_common(1)[0]
    return text if len(texts) == 1 else f"{text} ({count} of {len(texts)})"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def cartography(data_set: str, system: System) -> Iterator[Table]:
    """The clearest cases of each region of the data map of the first run that kept its evaluations."""
    run, found = next(((run, found) for run in system.runs if (found := of_run(run))), (None, None))
    if run is None or found is None:
        return
    rows = []
    for region, indices in found.regions.items():
        for i in indices[:5]:
            numbers = (found.confidence[i], found.variability[i], found.correctness[i])
            shown = [per_cent(float(number), [run.path]) for number in numbers]
            rows.append([region, found.ids[i], *shown, found.examples.text[i], found.examples.gold[i]])
    caption = (
        f"Validation examples by how {run.path.name} ({system.name}) saw them over its evaluations: the clearest five "
        f"of each third, in per cent. All {len(found.ids):,}: mean confidence {100 * found.confidence.mean():.1f}, "
        f"mean variability {100 * found.variability.mean():.1f}."
    )
    columns = ("region", "id", "confidence", "variability", "correctness", "text", "gold")
    yield make_table(f"Data map of {data_set}", columns, rows, caption)


def agreements(data_set: str, first: System, systems: Sequence[System]) -> Iterator[Table]:
    """The best system against each other one, and the examples on which it differs most from the next best."""
    others = [system for system in systems if system is not first]
    if not others:
        return
    rows, found = [], {}
    for other in others:
        found[other.name] = each = agreement(first.examples, _aligned(other, first))
        numbers = (each.both_right, each.only_first, each.only_second, each.both_wrong, each.same_prediction)
        both = (*first.paths, *other.paths)
        kappa = "" if each.kappa is None else cell(each.kappa, both, decimals=3)
        rows.append([first.name, other.name, *(per_cent(number, both) for number in numbers), kappa])
    caption = (
        "Per cent of the examples, for a run of each system drawn at random; kappa is Cohen's, of the predicted labels."
    )
    columns = ("first", "second", "both right", "only first", "only second", "both wrong", "same prediction", "kappa")
    yield make_table(f"Agreement on {data_set}", columns, rows, caption)
    rival = max(others, key=lambda system: float(np.mean([run.score.mean() for run in system.examples])))
    yield differing(data_set, first, rival, found[rival.name].advantage)


def differing(data_set: str, first: System, second: System, advantage: Floats) -> Table:
    """Examples that one system gets right more often than the other, the clearest on both sides."""
    order = np.argsort(advantage, kind="stable")
    chosen = [i for i in (*order[: MOST_EXAMPLES // 2], *order[::-1][: MOST_EXAMPLES // 2]) if advantage[i] != 0]
    other_runs = _aligned(second, first)
    rows = []
    for i in map(int, chosen):
        shown = per_cent(float(advantage[i]), (*first.paths, *second.paths), decimals=0)
        ours = usual([run.prediction[i] for run in first.examples])
        theirs = usual([run.prediction[i] for run in other_runs])
        example = first.examples[0]
        rows.append([example.ids[i], shown, example.text[i], example.gold[i], ours, theirs])
    caption = f"Advantage: per cent of runs right, {second.name} less {first.name}."
    columns = ("id", "advantage", "text", "gold", first.name, second.name)
    return make_table(f"Where the two best differ on {data_set}", columns, rows, caption)


def _aligned(system: System, reference: System) -> list[Examples]:
    """The runs of a system with the examples in the order of another's."""
    ids = reference.examples[0].ids
    if system.examples[0].ids == ids:
        return system.examples
    names = (str(system.paths[0]), str(reference.paths[0]))
    return [system.metric.examples(in_order(each, ids, *names)) for each in system.tables]
