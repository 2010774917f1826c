"""`research ensemble`: the mean of the probabilities of several runs, from their predictions files; no model is loaded.

Weights are chosen on validation data alone, by greedy selection with replacement (Caruana et al. 2004, Ensemble
Selection from Libraries of Models): the member that helps the mean most is added, time after time; how often a member
stands in the best mean is its weight.

Shapes: R runs, N examples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from research.common.errors import UserError
from research.common.files import write_json
from research.common.text import signed
from research.report.grouping import refuse_other_tasks
from research.report.records import Record
from research.report.statistics.intervals import Interval, contrast, over_examples
from research.report.statistics.paired_counts import in_order, paired
from research.report.statistics.resampling import RESAMPLES, bootstrap
from research.tracking import predictions

ROUNDS = 20  # members in the mean at most, repetitions included
LEAST = 1e-9  # of a score, to be better


@dataclass(frozen=True)
class Gain:
    """What a score of the ensemble is above that of another, in fractions."""

    over: str
    difference: float
    interval: Interval


@dataclass(frozen=True)
class Ensemble:
    """An ensemble of runs, scored."""

    members: dict[str, float]  # path -> weight
    metric: str
    best: str  # the member with the best validation score
    scores: dict[str, dict[str, float]]  # split -> of each member, `uniform` and `ensemble`
    gains: list[Gain]
    split: str  # that the gains are of
    tables: dict[str, pa.Table]  # split -> predictions of the ensemble


def ensemble_of(
    records: Sequence[Record], metric: str | None = None, uniform: bool = False, resamples: int = RESAMPLES
) -> Ensemble:
    """The ensemble of finished runs, its weights chosen on validation.

    Raises UserError for other tasks, labels or examples, and for predictions without probabilities.
    """
    records = [record for record in records if record.result is not None]
    if len(records) < 2:
        raise UserError("An ensemble takes two finished runs or more.")
    refuse_other_tasks(records)
    names = [str(record.path) for record in records]
    chosen_by = metric or records[0].chosen_by
    split = "test" if all(record.scores("test") for record in records) else "validation"
    tables = {each: lined_up(records, each) for each in dict.fromkeys(("validation", split))}
    refuse_other_labels(records, tables["validation"])
    sign = -1.0 if records[0].score_named(chosen_by).smaller_is_better else 1.0
    weights = equal = np.full(len(records), 1 / len(records))
    if not uniform:
        weights = chosen_weights(tables["validation"], chosen_by, sign)
    means = {each: mean_table(found, weights) for each, found in tables.items()}
    scores = {
        each: {
            **{name: _score(table, chosen_by) for name, table in zip(names, found, strict=True)},
            "uniform": _score(mean_table(found, equal), chosen_by),
            "ensemble": _score(means[each], chosen_by),
        }
        for each, found in tables.items()
    }
    best = int(np.argmax([sign * scores["validation"][name] for name in names]))
    gains = gains_of(means[split], tables[split], names, best, chosen_by, resamples)
    members = dict(zip(names, weights.tolist(), strict=True))
    return Ensemble(members, chosen_by, names[best], scores, gains, split, means)


def lined_up(records: Sequence[Record], split: str) -> list[pa.Table]:
    """The predictions of all runs, in the order of the first's ids, with the same gold answers."""
    first: pa.Table | None = None
    found = []
    for record in records:
        table = record.predictions(split)
        if "probabilities" not in table.column_names:
            raise UserError(
                f"The predictions of {record.path} hold no probabilities to average: task '{record.task}' has none "
                "there. Ensembles are of classification, multiple_choice and relation."
            )
        first = table if first is None else first
        ordered = in_order(table, first.column("id").to_pylist(), str(record.path), str(records[0].path))
        if not ordered.column("gold").equals(first.column("gold")):
            raise UserError(f"{records[0].path} and {record.path} hold other gold answers for the same ids.")
        found.append(ordered)
    return found


def refuse_other_labels(records: Sequence[Record], tables: Sequence[pa.Table]) -> None:
    """Raise UserError unless all runs have the same labels in the same order."""
    labels = [predictions.settings(table).get("labels") for table in tables]
    for record, own in zip(records, labels, strict=True):
        if own != labels[0]:
            raise UserError(
                f"{records[0].path} and {record.path} have other labels ({labels[0]} and {own}); "
                "give data.labels to both and train them again."
            )


def probabilities_of(table: pa.Table) -> np.ndarray:
    """(N, C)."""
    found: np.ndarray = np.array(table.column("probabilities").to_pylist(), dtype=np.float64)
    return found


def mean_table(tables: Sequence[pa.Table], weights: np.ndarray) -> pa.Table:
    """The predictions of the weighted mean of the runs' probabilities."""
    mean = np.average([probabilities_of(table) for table in tables], axis=0, weights=weights)
    first = tables[0]
    labels = predictions.settings(first)["labels"]
    changed: dict[str, Any] = {
        "prediction": pa.array([labels[i] for i in mean.argmax(1)], first.column("prediction").type),
        "probabilities": pa.array(list(mean), first.column("probabilities").type),
    }
    for name, column in changed.items():
        first = first.set_column(first.column_names.index(name), name, column)
    return first


def chosen_weights(tables: Sequence[pa.Table], metric: str, sign: float) -> np.ndarray:
    """(R,) by greedy selection with replacement; of equal means the one found first."""
    counts, best = np.zeros(len(tables)), np.zeros(len(tables))
    best_score = -np.inf
    for _ in range(ROUNDS):
        trials = [counts + step for step in np.eye(len(tables))]
        scores = [sign * _score(mean_table(tables, trial), metric) for trial in trials]
        counts = trials[int(np.argmax(scores))]
        if max(scores) > best_score + LEAST:
            best, best_score = counts, max(scores)
    weights: np.ndarray = best / best.sum()
    return weights


def gains_of(
    mean: pa.Table, members: Sequence[pa.Table], names: Sequence[str], best: int, metric: str, resamples: int
) -> list[Gain]:
    """The ensemble's score less that of the best member, and less the mean of all, with intervals over examples."""
    sides = {f"the best member on validation, {names[best]}": [members[best]], "the mean member": list(members)}
    found = []
    for over, others in sides.items():
        counts = paired([("ensemble", mean), *((names[i], t) for i, t in enumerate(others))], metric)
        runs = (1, len(others))
        interval = over_examples(counts, runs, bootstrap(counts, resamples))
        found.append(Gain(over, float(contrast(counts.metrics, runs)), interval))
    return found


def write_ensemble(found: Ensemble, folder: Path) -> None:
    """`ensemble.json` and the predictions of each split."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, table in found.tables.items():
        predictions.write(table, folder / f"{split}.parquet")
    write_json(folder / "ensemble.json", {"members": found.members, "metric": found.metric, "scores": found.scores})


def ensemble_text(found: Ensemble) -> str:
    """Members, scores and gains, a line each."""
    lines = [f"{found.metric} of {len(found.members)} runs; weights chosen on validation"]
    for name in (*found.members, "uniform", "ensemble"):
        weight = f"  weight {found.members[name]:.2f}" if name in found.members else ""
        scores = ", ".join(f"{split} {of[name]:z.4f}" for split, of in found.scores.items())
        lines.append(f"  {name}: {scores}{weight}")
    for gain in found.gains:
        limits = f"[{signed(gain.interval.low, 4)}, {signed(gain.interval.high, 4)}]"
        lines.append(f"{found.split}: {signed(gain.difference, 4)} {limits} over {gain.over}")
    if found.split == "validation":
        lines.append("There is no test data: weights and gains are of the same examples, so the gains are optimistic.")
    return "\n".join(lines)


def _score(table: pa.Table, metric: str) -> float:
    scores = predictions.score(table)
    if metric not in scores:
        raise UserError(f"There is no score '{metric}'; there are {', '.join(scores)}.")
    return float(scores[metric])
