"""Where the variance of a score comes from: few-shot sample, initialisation, data order, the test examples.

Legend: I initialisation seeds, O order seeds, R runs, B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class VarianceSplit:
    """Standard deviations of a single run's score by source; None where the seeds do not allow it, `why` says which."""

    initialisation: float | None
    order: float | None
    both: float | None  # what initialisation and order do only together, and what neither explains
    sampling: float | None  # of the test examples
    why: str
    shots: float | None = None  # the sample of training examples; `seed` is then all that a run draws beside it
    seed: float | None = None


def split_variance(
    init_seeds: Sequence[int], order_seeds: Sequence[int], scores: np.ndarray, replicates: np.ndarray | None = None
) -> VarianceSplit:
    """Two-way random-effects analysis of variance of runs whose seeds of initialisation and order are crossed.

    `scores` (R,) has one run for each pair of the I x O seeds, I and O at least 2. `replicates` (B, R) are the runs'
    metrics on bootstrap resamples of the test examples. A component estimated below 0 counts as 0.
    """
    sampling = None if replicates is None else float(np.sqrt(replicates.var(axis=0).mean()))
    inits, orders = sorted(set(init_seeds)), sorted(set(order_seeds))
    pairs = list(zip(init_seeds, order_seeds, strict=True))
    if len(inits) < 2 or len(orders) < 2 or len(pairs) != len(inits) * len(orders) or len(set(pairs)) != len(pairs):
        return VarianceSplit(None, None, None, sampling, _why(len(inits), len(orders), len(set(pairs))))
    table = np.empty((len(inits), len(orders)))  # (I, O)
    for (init, order), score in zip(pairs, scores, strict=True):
        table[inits.index(init), orders.index(order)] = score
    of_init, of_order, both = (float(np.sqrt(max(part, 0.0))) for part in components(table))
    why = f"{len(inits)} initialisations crossed with {len(orders)} orders"
    return VarianceSplit(of_init, of_order, both, sampling, why)


def split_by_sample(samples: Sequence[int], scores: np.ndarray, sampling: float) -> VarianceSplit:
    """Of runs over few-shot samples: what the sample of training examples does, and what the seed does.

    One-way random-effects analysis of variance, seeds within samples: the same seed shares no more between two samples
    than another does. A component estimated below 0 counts as 0.
    """
    groups = [scores[[s == sample for s in samples]] for sample in dict.fromkeys(samples)]
    sizes = np.array([len(group) for group in groups])
    if len(groups) < 2 or sizes.min() < 2:
        why = "one seed a sample: sample and seed cannot be separated; run each data.shots_seed with two seeds or more"
        return VarianceSplit(None, None, None, sampling, why)
    within = sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / (sizes.sum() - len(groups))
    means, mean = np.array([g.mean() for g in groups]), float(scores.mean())
    between = float((sizes * (means - mean) ** 2).sum()) / (len(groups) - 1)
    size = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(groups) - 1)  # of a sample; their mean where equal
    of_sample, of_seed = float(np.sqrt(max((between - within) / size, 0.0))), float(np.sqrt(within))
    why = f"{len(groups)} samples with {sizes.min()} or more seeds each"
    return VarianceSplit(None, None, None, sampling, why, of_sample, of_seed)


def components(table: np.ndarray) -> tuple[float, float, float]:
    """Variance components of rows, columns and the rest of a two-way table with one value a cell (I, O)."""
    rows, columns = table.shape
    of_rows, of_columns = table.mean(axis=1), table.mean(axis=0)
    rest = table - of_rows[:, None] - of_columns[None, :] + table.mean()
    residual = float((rest**2).sum() / ((rows - 1) * (columns - 1)))
    return (
        float(of_rows.var(ddof=1)) - residual / columns,
        float(of_columns.var(ddof=1)) - residual / rows,
        residual,
    )


def _why(inits: int, orders: int, pairs: int) -> str:
    if inits < 2 and orders < 2:
        return "one run: nothing to split"
    if min(inits, orders) < 2:
        fixed = "seed_init" if inits < 2 else "seed_order"
        return f"{fixed} has one value in all runs; run each value of the other seed with two or more of it"
    if pairs == max(inits, orders):
        return (
            "seed_init and seed_order vary together; cross them (each value of one with each of the other) to tell "
            "initialisation and data order apart"
        )
    return (
        f"{inits} values of seed_init and {orders} of seed_order make {inits * orders} pairs, of which {pairs} were "
        "run; run all of them, with at least two values each"
    )
