"""Summaries of several runs of one experiment, over seeds, folds and few-shot samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from research.metrics.score import from_record
from research.report.statistics.folds import over_folds
from research.tracking import predictions
from research.tracking.run import Run


def summary_of(runs: Sequence[Run]) -> str:
    """`test: f1 0.8125 ± 0.0120 over 3 seeds`, mean and standard deviation of the sample, for each split and score.

    Of folds the mean over seeds counts once each, and the test scores have the interval of `report.statistics.folds`.
    """
    results = [run.result or {} for run in runs]
    metrics = [result.get("metrics") or {} for result in results]
    lines = []
    for split in dict.fromkeys(name for each in metrics for name in each if each[name]):
        scores = [each.get(split) or {} for each in metrics]
        for name in (name for name in scores[0] if "/" not in name and all(name in each for each in scores)):
            values = np.array([each[name] for each in scores])
            lines.append(f"{split}: {name} {_said(runs, split, name, values)}")
        lines += _equal_predictions(runs, split)
    return "\n".join(lines)


def _equal_predictions(runs: Sequence[Run], split: str) -> list[str]:
    """A warning where two runs of the same data differ in nothing that they predict."""
    paths = {run: run.predictions / f"{split}.parquet" for run in runs}
    answers = {run: predictions.read(path).column("prediction") for run, path in paths.items() if path.is_file()}
    for (one, ours), (other, theirs) in combinations(answers.items(), 2):
        drawn, drawn_too = ((r.config.data.fold, r.config.data.shots_seed) for r in (one, other))
        if drawn == drawn_too and ours.equals(theirs):
            seeds = f"{one.config.seed} and {other.config.seed}"
            return [f"{split}: seeds {seeds} give the same predictions: their scores are one, the deviation too small."]
    return []


def _said(runs: Sequence[Run], split: str, name: str, values: np.ndarray) -> str:
    folds = [run.config.data.fold for run in runs]
    samples = [run.config.data.shots_seed for run in runs]
    seeds = len({run.config.seed for run in runs})
    if len(set(folds)) == 1 and len(set(samples)) > 1:
        of_samples = np.array([values[[s == each for s in samples]].mean() for each in dict.fromkeys(samples)])
        return f"{_mean(of_samples)} over {len(of_samples)} samples" + (f" of {seeds} seeds each" if seeds > 1 else "")
    if len(set(folds)) == 1:
        return f"{_mean(values)} over {seeds} seeds"
    of_folds = np.array([values[[f == fold for f in folds]].mean() for fold in dict.fromkeys(folds)])
    text = f"{_mean(of_folds)} over {len(of_folds)} folds" + (f" of {seeds} seeds each" if seeds > 1 else "")
    if split != "test":
        return text
    low, high = _range((runs[0].result or {}).get("metric") or {}, name)
    interval = over_folds(of_folds, _examples(runs, "train"), _examples(runs, "test"), low=low, high=high)
    return f"{text}, 95 % interval {interval.low:z.4f} to {interval.high:z.4f} (corrected resampled t)"


def _mean(values: np.ndarray) -> str:
    return f"{values.mean():z.4f} ± {values.std(ddof=1):.4f}"


def _examples(runs: Sequence[Run], split: str) -> float:
    return float(np.mean([run.provenance["data"][split]["examples"] for run in runs]))


def _range(metric: Mapping[str, Any], name: str) -> tuple[float, float]:
    """The range of a score, by what the run recorded of its metric."""
    known = {score.name: (score.low, score.high) for score in from_record(metric.get("scores") or ())}
    return known.get(name, (-np.inf, np.inf))
