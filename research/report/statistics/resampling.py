"""Resamples of examples: their metrics, recomputed from summed counts, fast enough to do ten thousand of them.

A resample is a weight per example, and the sums of counts are weights @ counts.

Legend: N examples, K counts, R runs, B resamples.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from research.report.statistics.paired_counts import PairedCounts

RESAMPLES = 10_000
_CHUNK = 200_000  # weights at a time: they stay in the processor's cache


def bootstrap(counts: PairedCounts, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """The metric of each run on each bootstrap resample of the examples (B, R); all runs share a resample."""
    rows, rng = _side_by_side(counts), np.random.default_rng(seed)
    parts = [
        counts.score(sums.reshape(len(sums), *_run_shape(counts))) for sums in _resampled_sums(rows, resamples, rng)
    ]
    return np.concatenate(parts)


def left_out(counts: PairedCounts) -> np.ndarray:
    """The metric of each run without one example after another (N, R): the jackknife."""
    sums = counts.values.sum(axis=1)[:, None] - counts.values  # (R, N, K)
    return counts.score(sums).T


def swapped(counts: PairedCounts, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Differences of mean metrics, first half of the runs less second (B,), after swapping outputs by coins.

    One coin per example: its outputs of all runs of one system go to the other's, run by run.
    """
    first, second = np.split(counts.values, 2)  # each (R, N, K)
    rng = np.random.default_rng(seed)
    gap = np.moveaxis(second - first, 0, 1).reshape(len(counts.ids), -1)  # (N, RK)
    gap = gap[np.any(gap != 0, axis=1)]  # swapping equal outputs changes nothing
    sums_first, sums_second = first.sum(axis=1), second.sum(axis=1)  # (R, K)
    parts = []
    for coins in _coins(len(gap), resamples, rng):
        moved = (coins @ gap).reshape(len(coins), *sums_first.shape)
        scores = counts.score(sums_first + moved), counts.score(sums_second - moved)  # each (b, R)
        parts.append(scores[0].mean(axis=1) - scores[1].mean(axis=1))
    return np.concatenate(parts)


def _resampled_sums(rows: np.ndarray, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Sums (b, K) of N rows drawn with replacement from (N, K), `resamples` times in all.

    Which rows are drawn depends on N and the seed alone, so that two systems get the same interval and p-value in a
    report of many systems as in a comparison of these two.
    """
    total = len(rows)
    for size in _chunks(resamples, total):
        drawn = rng.integers(total, size=(size, total), dtype=np.int32)
        drawn += np.arange(0, size * total, total, dtype=np.int32)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * total).reshape(size, total)
        yield weights.astype(np.float64) @ rows


def _coins(count: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Zeros and ones (b, count), fair and independent."""
    for size in _chunks(resamples, max(count, 1)):
        bits = np.unpackbits(np.frombuffer(rng.bytes(size * (count // 8 + 1)), np.uint8).reshape(size, -1), axis=1)
        yield bits[:, :count].astype(np.float64)


def _chunks(resamples: int, width: int) -> Iterator[int]:
    step = max(1, _CHUNK // width)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)


def _side_by_side(counts: PairedCounts) -> np.ndarray:
    """The counts of all runs on an example as one row (N, RK)."""
    return np.moveaxis(counts.values, 0, 1).reshape(len(counts.ids), -1)


def _run_shape(counts: PairedCounts) -> tuple[int, int]:
    return counts.values.shape[0], counts.values.shape[2]
