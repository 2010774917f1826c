"""Scores of texts with any number of labels: micro, macro and sample F1, and the share of exactly right sets.

Legend: N examples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from research.metrics.base import BaseMetric, Blocks, Formula, precision_recall_f1, ratio
from research.metrics.examples import Floats
from research.metrics.score import Score

PARTS = ("precision", "recall", "f1")
DEFAULT_THRESHOLD = 0.5


class Metric(BaseMetric):
    """Multi-label classification; `settings["labels"]` are the classes.

    The scores are those of scikit-learn with `zero_division=0`: `micro_*` over all decisions together, `macro_f1` the
    mean over the declared classes, `sample_f1` the mean over the examples, `accuracy` the share of examples whose set
    of labels is exactly right. `threshold` is the probability above which a label is given so that micro F1 is highest,
    and `threshold/<label>`, where `settings["thresholds"]` is each, so that the label's own F1 is; they need the column
    `probabilities`, in the order of the labels.
    """

    scores = (
        Score("micro_f1", "micro F1"),
        Score("micro_precision", "micro precision"),
        Score("micro_recall", "micro recall"),
        Score("macro_f1", "macro F1"),
        Score("sample_f1", "sample F1"),
        Score("accuracy", "exact match of the label set", is_proportion=True),
        Score("threshold", "best threshold"),
    )
    texts = ("text", "text_pair")
    columns = ("label", "probabilities")
    sentence = "micro, macro and sample F1 by the rules of scikit-learn"

    @property
    def labels(self) -> list[str]:
        return list(self.settings["labels"])

    @property
    def signature(self) -> str:
        threshold = "each" if self.of_each else f"{self.settings.get('threshold', DEFAULT_THRESHOLD):g}"
        return f"multi_label|classes:{len(self.labels)}|zero_division:0|threshold:{threshold}"

    @property
    def of_each(self) -> bool:
        """Has each label a threshold of its own?"""
        return self.settings.get("thresholds") == "each"

    def widths(self) -> dict[str, int]:
        return {"examples": 2, "samples": 2, **{f"class/{label}": 3 for label in self.labels}}

    def counts(self, table: pa.Table) -> Blocks:
        """`examples`: right, 1. `samples`: F1, 1. `class/<label>`: true positives, predicted, gold.

        Raises ValueError for a label that is not declared.
        """
        gold, found = (self.indicators(table.column(name)) for name in ("gold", "prediction"))  # each (N, C)
        by_class = np.stack([gold & found, found, gold], axis=-1).astype(np.float64)  # (N, C, 3)
        ones = np.ones(len(gold))
        f1 = precision_recall_f1(by_class.sum(axis=1))[:, 2]
        return {
            "examples": np.column_stack([(gold == found).all(axis=1), ones]).astype(np.float64),
            "samples": np.column_stack([f1, ones]),
            **{f"class/{label}": by_class[:, i] for i, label in enumerate(self.labels)},
        }

    def indicators(self, column: pa.ChunkedArray) -> np.ndarray:
        """Lists of labels -> (N, C) bool. Raises ValueError for a label that is not declared."""
        place = {label: i for i, label in enumerate(self.labels)}
        found = np.zeros((len(column), len(place)), dtype=bool)
        for row, labels in enumerate(column.to_pylist()):
            for label in labels or ():
                if label not in place:
                    raise ValueError(f"the label {label!r} is not among the declared {self.labels}")
                found[row, place[label]] = True
        return found

    def formula(self, name: str) -> Formula | None:
        part, _, label = name.partition("/")
        every = tuple(f"class/{each}" for each in self.labels)
        if name in ("accuracy", "sample_f1"):
            return Formula(("examples" if name == "accuracy" else "samples",), ratio)
        if name == "macro_f1":
            return Formula(every, lambda sums: precision_recall_f1(_by_class(sums))[..., 2].mean(axis=-1))
        if part.startswith("micro_") and not label:
            return Formula(every, partial(_micro, PARTS.index(part.removeprefix("micro_"))))
        if label in self.labels and part in (*PARTS, "support"):
            return Formula((f"class/{label}",), _support if part == "support" else partial(_micro, PARTS.index(part)))
        return None

    def reported(self, sums: Blocks) -> list[str]:
        overall = [score.name for score in self.scores if score.name != "threshold"]
        return overall + [f"{part}/{label}" for label in self.labels for part in (*PARTS, "support")]

    def beside(self, table: pa.Table) -> dict[str, float]:
        if "probabilities" not in table.column_names:
            return {}
        gold, p = self.indicators(table.column("gold")), self.probabilities(table)
        if self.of_each:
            return {f"threshold/{label}": best_threshold(gold[:, i], p[:, i]) for i, label in enumerate(self.labels)}
        return {"threshold": best_threshold(gold, p)}

    def probabilities(self, table: pa.Table) -> Floats:
        """The column `probabilities` (N, C)."""
        return np.array(table.column("probabilities").to_pylist(), dtype=np.float64).reshape(table.num_rows, -1)

    def example_scores(self, table: pa.Table) -> Floats:
        """F1 of each example's set; 1 where both sets are empty."""
        blocks = self.counts(table)
        return np.maximum(blocks["samples"][:, 0], blocks["examples"][:, 0])

    def confidence(self, table: pa.Table) -> Floats | None:
        """The probability of the least sure decision of each example."""
        if "probabilities" not in table.column_names:
            return None
        p = self.probabilities(table)
        sure: Floats = np.maximum(p, 1 - p).min(axis=1)
        return sure

    def shown(self, table: pa.Table) -> tuple[list[str], list[str]]:
        gold, found = (
            [", ".join(labels or ()) or "(none)" for labels in table.column(name).to_pylist()]
            for name in ("gold", "prediction")
        )
        return gold, found

    def table(self, predictions: Sequence[Any], golds: Sequence[Any], **columns: Any) -> pa.Table:
        """Sets of labels, as lists."""
        kind = pa.list_(pa.string())
        sides = [pa.array([list(labels) for labels in side], kind) for side in (predictions, golds)]
        return super().table(*[side.to_pylist() for side in sides], **columns)


def _by_class(sums: Floats) -> Floats:
    return sums.reshape(*sums.shape[:-1], -1, 3)


def _micro(part: int, sums: Floats) -> Floats:
    return np.asarray(precision_recall_f1(_by_class(sums).sum(axis=-2))[..., part])


def _support(sums: Floats) -> Floats:
    return sums[..., 2]


def best_threshold(gold: np.ndarray, probabilities: Floats) -> float:
    """The probability above which a label is given, between two that occur, so that micro F1 is highest.

    Ties go to the threshold nearest to 0.5. `gold`: (N, C) bool; `probabilities`: (N, C); both (N,) for one label.
    """
    flat = probabilities.ravel()
    order = np.argsort(-flat, kind="stable")
    sorted_p, right = flat[order], gold.ravel()[order]
    given = np.arange(1, len(flat) + 1)
    f1 = 2 * np.cumsum(right) / (given + gold.sum())
    distinct = np.append(sorted_p[1:] < sorted_p[:-1], True)  # equal probabilities are given together
    below = np.append(sorted_p[1:], 0.0)
    candidates = (sorted_p + below)[distinct] / 2
    scores = f1[distinct]
    best = candidates[scores >= scores.max()]
    return float(best[np.abs(best - DEFAULT_THRESHOLD).argmin()])
