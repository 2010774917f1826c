"""Reliability diagrams (DeGroot & Fienberg 1983; Guo et al. 2017): is a prediction as often right as it is sure?

Legend: P predictions (examples, or what else has a confidence of its own), M bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from research.metrics.classification import CALIBRATION_BINS as BINS
from research.metrics.classification import bins_of
from research.report.figures import style
from research.report.groups import MOST_RUNS, Grid, leading_groups, left_out_note, runs_with_predictions
from research.report.records import Record
from research.report.tables.cells import file_name
from research.tracking.predictions import known_metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLACE = 70  # on the page
MOST_SYSTEMS = 4
LARGEST_POINT, SMALLEST_POINT = 60.0, 2.0  # square points


@dataclass(frozen=True)
class Reliability:
    """Bins that hold predictions."""

    confidence: np.ndarray  # (M,) mean
    accuracy: np.ndarray  # (M,)
    size: np.ndarray  # (M,) predictions

    @property
    def error(self) -> float:
        """Expected calibration error: the mean gap between accuracy and confidence over predictions."""
        return float(np.average(np.abs(self.accuracy - self.confidence), weights=self.size))


def figures(grid: Grid, records: Sequence[Record]) -> Iterator[tuple[str, str, Figure]]:
    for data_set in grid.data_sets:
        groups = leading_groups(grid, data_set, MOST_SYSTEMS)
        tables = {
            group.system: [run.predictions(group.split) for run in runs_with_predictions(group)] for group in groups
        }
        metrics = [known_metric(runs[0]) for runs in tables.values() if runs]
        metric = metrics[0] if metrics else None
        if metric is None:
            continue
        claims = {name: [metric.claims(each) for each in runs] for name, runs in tables.items()}
        claims = {name: runs for name, runs in claims.items() if any(np.isfinite(sure).any() for sure, _ in runs)}
        if claims:
            caption = (
                f"Reliability on {data_set} ({groups[0].split}): accuracy of {metric.unit} against mean confidence in "
                f"{BINS} bins of equal width, up to {MOST_RUNS} runs of a system pooled; the grey line is calibrated. "
                f"A point's area is its share of the {metric.unit}; below, their share in each bin. "
                "ECE: expected calibration error, mean over runs." + left_out_note(len(groups), grid, data_set)
            )
            yield f"calibration-{file_name(data_set)}", caption, draw_reliability(claims)


def reliability(confidence: np.ndarray, right: np.ndarray) -> Reliability:
    """Predictions in bins of equal width, a bin holding its lower edge; those without a confidence are left out."""
    known = np.isfinite(confidence)
    confidence, right = confidence[known], right[known]
    bins = bins_of(confidence)
    size = np.bincount(bins)
    filled = size > 0
    sums = [np.bincount(bins, weights=values)[filled] for values in (confidence, right.astype(float))]
    return Reliability(sums[0] / size[filled], sums[1] / size[filled], size[filled])


def draw_reliability(claims: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]) -> Figure:
    figure, (above, below) = style.new_figure(2.9, rows=2, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.8, label="calibrated")
    lowest = 1.0
    for i, (name, runs) in enumerate(claims.items()):
        confidence, right = (np.concatenate(parts) for parts in zip(*runs, strict=True))
        overall = reliability(confidence, right)
        error = np.mean([reliability(*run).error for run in runs])
        look = style.look(i)
        marker = look.pop("marker")
        above.plot(overall.confidence, overall.accuracy, **look)
        above.plot([], [], marker=marker, label=f"{name} (ECE {100 * error:.1f} %)", **look)  # for the legend
        areas = LARGEST_POINT * overall.size / overall.size.max()
        above.scatter(
            overall.confidence, overall.accuracy, np.maximum(areas, SMALLEST_POINT), color=look["color"], marker=marker,
            zorder=3, clip_on=False,
        )  # fmt: skip
        lowest = min(lowest, float(overall.confidence.min()))
        known = confidence[np.isfinite(confidence)]
        edges = np.linspace(0, 1, BINS + 1)
        below.hist(known, edges, weights=np.full(len(known), 1 / len(known)), histtype="step", linewidth=1.0, **look)
    left = min(0.5, max(0.0, np.floor(lowest * 10) / 10)) - 0.02
    above.set_xlim(left, 1.01)
    above.set_ylim(-0.02, 1.02)
    above.set_ylabel("accuracy (%)")
    below.set_ylabel("share (%)")
    below.set_xlabel("confidence (%)")
    style.per_cent(above.yaxis, below.yaxis, below.xaxis)
    figure.align_ylabels()
    style.legend_below(figure, above)
    return figure
