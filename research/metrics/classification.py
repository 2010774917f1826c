"""Scores of single-label classification: accuracy, macro averages, Matthews correlation, calibration error.

Legend: N examples, C classes, K counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from research.metrics.base import BaseMetric, Blocks, Formula, ratio
from research.metrics.examples import Floats
from research.metrics.score import Score
from research.metrics.slicing import Cut, value_cuts

CALIBRATION_BINS = 15
PARTS = ("precision", "recall", "f1")
MOST_LABELS = 100  # of which each is a slice


class Metric(BaseMetric):
    """Single-label classification; `settings["labels"]` are the classes.

    Macro averages are plain means over all declared labels, as scikit-learn has them: a label that occurs in neither
    gold nor prediction counts as 0, as does any ratio with denominator 0. `mcc` is Gorodkin's (2004) R_K. The columns
    are gold, prediction and, for what needs them, probabilities in the order of the labels.
    """

    scores = (
        Score("accuracy", "accuracy", is_proportion=True),
        Score("f1", "macro F1"),
        Score("precision", "macro precision"),
        Score("recall", "macro recall"),
        Score("mcc", "MCC", low=-1.0),
        Score("calibration_error", "ECE", smaller_is_better=True),
    )
    has_labels = True
    texts = ("text", "text_pair", "choices")
    columns = ("label", "probabilities")
    sentence = "accuracy, macro-averaged F1 and Matthews correlation by the rules of scikit-learn"

    @property
    def labels(self) -> list[str]:
        return list(self.settings["labels"])

    @property
    def signature(self) -> str:
        return f"classification|average:macro|classes:{len(self.labels)}|zero_division:0|ece:{CALIBRATION_BINS} bins"

    def widths(self) -> dict[str, int]:
        return {"examples": 2, "bins": CALIBRATION_BINS + 2, **{f"class/{label}": 3 for label in self.labels}}

    def counts(self, table: pa.Table) -> dict[str, Floats]:
        """`examples`: right, 1. `class/<label>`: true positives, predicted, gold. `bins`: see `bin_gaps`.

        Raises ValueError for a label that is not declared, and for probabilities that are none.
        """
        gold, prediction = self.indices(table)  # each (N,)
        classes = np.arange(len(self.labels))
        expected, found = gold[:, None] == classes, prediction[:, None] == classes  # (N, C)
        by_class = np.stack([expected & found, found, expected], axis=-1).astype(np.float64)  # (N, C, 3)
        blocks = {f"class/{label}": by_class[:, i] for i, label in enumerate(self.labels)}
        blocks["examples"] = np.column_stack([gold == prediction, np.ones(len(gold))]).astype(np.float64)
        if "probabilities" in table.column_names:
            blocks["bins"] = bin_gaps(gold, self.probabilities(table))
        return blocks

    def table(self, predictions: Sequence[Any], golds: Sequence[Any], **columns: Any) -> pa.Table:
        """Labels, their indices, or the predictions as probabilities (N, C)."""
        if len(predictions) and isinstance(predictions[0], Sequence) and not isinstance(predictions[0], str):
            columns["probabilities"] = predictions
            predictions = [int(np.argmax(row)) for row in predictions]
        named = [[x if isinstance(x, str) else self.labels[x] for x in column] for column in (predictions, golds)]
        return super().table(*named, **columns)

    def indices(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Gold and predicted labels as indices (N,). Raises ValueError for a label that is not declared."""
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"the labels {self.labels} name one class twice")
        columns = [table.column(name).cast(pa.string()) for name in ("gold", "prediction")]
        if undeclared := {label for each in columns for label in pc.unique(each).to_pylist()} - set(self.labels):
            raise ValueError(f"labels {sorted(undeclared, key=str)} are not among the declared {self.labels}")
        declared = pa.array(self.labels, pa.string())
        gold, prediction = (pc.index_in(each, declared).to_numpy() for each in columns)
        return gold, prediction

    def probabilities(self, table: pa.Table) -> Floats:
        """The column `probabilities` (N, C). Raises ValueError for another shape, logits and NaN."""
        flat = table.column("probabilities").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        if len(flat) != table.num_rows * len(self.labels):
            shape = np.shape(table.column("probabilities").to_pylist())
            raise ValueError(f"probabilities have shape {shape}, expected {(table.num_rows, len(self.labels))}")
        if not np.all((flat >= 0) & (flat <= 1)):  # written so that NaN fails too
            raise ValueError("probabilities must lie between 0 and 1: logits or NaN were given")
        return np.asarray(flat, dtype=np.float64).reshape(table.num_rows, -1)

    def formula(self, name: str) -> Formula | None:
        part, _, label = name.partition("/")
        if name == "accuracy":
            return Formula(("examples",), ratio)
        if name == "calibration_error":
            return Formula(("bins",), _calibration_error)
        if label and label not in self.labels:
            return None
        if part == "support" and label:
            return Formula((f"class/{label}",), lambda sums: sums[..., 2])
        blocks = tuple(f"class/{each}" for each in ([label] if label else self.labels))
        if name == "mcc":
            return Formula(blocks, matthews)
        return Formula(blocks, _macro(PARTS.index(part))) if part in PARTS else None

    def reported(self, sums: Blocks) -> list[str]:
        names = ["accuracy", "f1", "precision", "recall", "mcc"]
        if "bins" in sums and sums["bins"][-1]:
            names.append("calibration_error")
        return names + [f"{part}/{label}" for label in self.labels for part in (*PARTS, "support")]

    def confidence(self, table: pa.Table) -> Floats | None:
        return self.probabilities(table).max(axis=1) if "probabilities" in table.column_names else None

    def belief(self, table: pa.Table) -> Floats | None:
        if "probabilities" not in table.column_names:
            return None
        chosen: Floats = self.probabilities(table)[np.arange(table.num_rows), self.indices(table)[0]]
        return chosen

    def confusion(self, table: pa.Table) -> Counter[tuple[str, str]]:
        return Counter(zip(*(table.column(name).to_pylist() for name in ("gold", "prediction")), strict=True))

    def own_cuts(self, table: pa.Table) -> Iterator[Cut]:
        yield from value_cuts("gold label", table.column("gold").to_pylist(), most=MOST_LABELS)


def bin_gaps(gold: np.ndarray, probabilities: np.ndarray) -> Floats:
    """Per bin of confidence, correct minus confidence; last a 1 (N, bins + 2).

    Summed they give the expected calibration error (Naeini et al. 2015; Guo et al. 2017), 15 bins of equal width and
    the L1 norm: |accuracy - confidence| * size / N of a bin is |sum of correct - sum of confidence| / N.
    """
    confidence = probabilities.max(axis=1)  # (N,)
    gap = (probabilities.argmax(axis=1) == gold) - confidence  # (N,)
    bins = bins_of(confidence)[:, None] == np.arange(CALIBRATION_BINS + 1)  # (N, bins + 1)
    return np.column_stack([np.where(bins, gap[:, None], 0.0), np.ones(len(gap))])


def bins_of(confidence: np.ndarray) -> np.ndarray:
    """The bin of each confidence. A bin holds its lower edge; exactly 1 has a bin of its own, as in torchmetrics."""
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    return np.asarray(np.searchsorted(edges, confidence, side="right") - 1)


def _calibration_error(sums: Floats) -> Floats:
    gaps = np.cumsum(np.abs(sums[..., :-1]), axis=-1)[..., -1]
    return np.asarray(gaps / np.maximum(sums[..., -1], 1))


def _macro(part: int) -> Any:
    """Mean over classes of precision (0), recall (1) or F1 (2) from sums (..., 3C)."""

    def mean(sums: Floats) -> Floats:
        both, predicted, gold = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 3), -1, 0)  # (..., C)
        numerator = 2 * both if part == 2 else both
        denominator = (predicted, gold, predicted + gold)[part]
        return np.asarray((numerator / np.maximum(denominator, 1)).mean(axis=-1))

    return mean


def matthews(sums: Floats) -> Floats:
    """Matthews correlation of C classes (Gorodkin 2004) from sums (..., 3C); 0 where it is undefined."""
    both, predicted, gold = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 3), -1, 0)  # (..., C)
    examples = gold.sum(axis=-1)
    covariance = both.sum(axis=-1) * examples - (predicted * gold).sum(axis=-1)
    spread = (examples**2 - (predicted**2).sum(axis=-1)) * (examples**2 - (gold**2).sum(axis=-1))
    return np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)
