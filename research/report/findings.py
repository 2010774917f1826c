"""What makes a reported number mean less than it seems, each as a sentence for the report's notes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import pyarrow as pa

from research.metrics.baselines import constant_answer
from research.report.groups import Grid, RunGroup, runs_with_predictions
from research.report.statistics.baselines import Baseline
from research.report.statistics.intervals import over_both
from research.report.statistics.pool import Pool
from research.report.statistics.summary import Summary

WIDE_INTERVAL = 0.1  # of a score between 0 and 1


def findings(
    grid: Grid, pooled: Mapping[str, Pool], summaries: Sequence[Summary], lowest: Sequence[Baseline]
) -> list[str]:
    """Models that always answer the same, seeds that agree in everything, scores no better than knowing nothing, and
    test sets too small for their differences."""
    found = []
    for group in grid.groups:
        found += [*empty_scores(group, group.split), *_missing_folds(group)]
    found += _below_baselines(summaries, lowest)
    return found + [text for data_set, runs in pooled.items() for text in _small_test_set(data_set, runs)]


def empty_scores(group: RunGroup, split: str) -> list[str]:
    """Runs of a system that always answer the same, and seeds that agree in everything."""
    runs = [run for run in runs_with_predictions(group) if split in run.splits]
    predicted = {run.seed: run.predictions(split).column("prediction") for run in runs}
    return [*_constant_answers(group, split, predicted), *_equal_predictions(group, split, predicted)]


def _missing_folds(group: RunGroup) -> Iterator[str]:
    folds = group.runs[0].config["data"]["folds"] if group.folds else 0
    if missing := sorted(set(range(folds)) - set(group.folds)):
        yield (
            f"{group.system} on {group.data_set}: no run is finished on fold{'s' if len(missing) > 1 else ''} "
            f"{', '.join(map(str, missing))} of {folds}; its mean is over the others."
        )


def _constant_answers(group: RunGroup, split: str, predicted: Mapping[int, pa.ChunkedArray]) -> Iterator[str]:
    seeds: dict[str, list[int]] = {}
    for seed, column in predicted.items():
        if (answer := constant_answer(column)) is not None:
            seeds.setdefault(answer, []).append(seed)
    for answer, own in seeds.items():
        yield (
            f"{group.system} on {group.data_set} answers '{answer}' to every {split} example ({_named_seeds(own)}): "
            "its score says nothing of what it has learned."
        )


def _equal_predictions(group: RunGroup, split: str, predicted: Mapping[int, pa.ChunkedArray]) -> Iterator[str]:
    for (seed, column), (other, other_column) in combinations(predicted.items(), 2):
        if column.equals(other_column):
            yield (
                f"{group.system} on {group.data_set}: seeds {seed} and {other} give the same {split} "
                "predictions, so their scores are one, and the deviation over seeds is too small."
            )
            return


def _below_baselines(summaries: Sequence[Summary], lowest: Sequence[Baseline]) -> Iterator[str]:
    for s in summaries:
        known = [b for b in lowest if b.group.data_set == s.group.data_set and b.split == s.split == s.group.split]
        sign = -1 if s.group.score.smaller_is_better else 1
        reached = [b for b in known if s.mean is not None and sign * s.mean <= sign * b.value]
        if reached:
            best = max(reached, key=lambda b: sign * b.value)
            yield (
                f"{s.group.system} on {s.group.data_set} is no better than the {best.name}: {100 * (s.mean or 0):z.1f} "
                f"against {100 * best.value:z.1f} ({s.split} {s.group.score.label})."
            )


def _small_test_set(data_set: str, runs: Pool) -> Iterator[str]:
    """Where the interval of one run over the examples alone is wide."""
    group = runs.groups[0]
    counts, _, replicates = runs.of(group)
    one = replace(counts, values=counts.values[:1])
    interval = over_both(one, (1,), replicates[:, :1]).interval()
    if interval.high - interval.low >= WIDE_INTERVAL:
        yield (
            f"{data_set}: with {len(counts.ids):,} {group.split} {counts.unit} the 95 % interval of one run's "
            f"{group.score.label} spans {100 * (interval.high - interval.low):.0f} points ({group.system}); smaller "
            "differences need more examples."
        )


def _named_seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
