"""Scores of labels that stand in a hierarchy: hierarchical precision, recall and F1, and the accuracy at each level.

Kiritchenko et al. 2006, Learning and Evaluation in the Presence of Class Hierarchies: a label stands for itself and all
labels above it. Over all examples, hP = sum |P & G| / sum |P|, hR = sum |P & G| / sum |G|, with P and G these sets for
the predicted and the gold label; hF is their harmonic mean.

Legend: N examples, C labels, D levels, K counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from research.data.hierarchy import path_to
from research.metrics import classification
from research.metrics.base import BaseMetric, Blocks, Formula, precision_recall_f1, ratio
from research.metrics.examples import Floats
from research.metrics.of_labels import OfLabels
from research.metrics.score import Score
from research.metrics.slicing import Cut, value_cuts

PARTS = ("hierarchical_precision", "hierarchical_recall", "hierarchical_f1")
LEVEL = "level_accuracy"


class Metric(OfLabels, BaseMetric):
    """Labels in a hierarchy; `settings`: "labels", and "parents", the label above each or null.

    `level_accuracy/2` is the share of the examples whose gold label lies at level 2 or below that are predicted under
    the right label of that level, level 1 being the top; `level_accuracy` the mean over levels. Accuracy and macro F1
    are those of plain classification.
    """

    scores = (
        Score("hierarchical_f1", "hierarchical F1"),
        Score("hierarchical_precision", "hierarchical precision"),
        Score("hierarchical_recall", "hierarchical recall"),
        Score("level_accuracy", "accuracy over levels"),
        Score("accuracy", "accuracy", is_proportion=True),
        Score("f1", "macro F1"),
        Score("calibration_error", "ECE", smaller_is_better=True),
    )
    has_labels = True
    texts = ("text", "text_pair")
    columns = ("label", "probabilities", "path")
    sentence = "hierarchical precision, recall and F1 of Kiritchenko et al. (2006), and the accuracy at each level"

    @property
    def paths(self) -> list[list[str]]:
        """Of each label, from the top down to itself."""
        return [path_to(label, self.settings["parents"]) for label in self.labels.labels]

    @property
    def levels(self) -> int:
        return max(map(len, self.paths))

    @property
    def signature(self) -> str:
        return f"hierarchical|sets:with ancestors|average:micro|levels:{self.levels}|classes:{len(self.paths)}"

    def widths(self) -> dict[str, int]:
        return {"sets": 3, **{f"level/{k + 1}": 2 for k in range(self.levels)}, **self.labels.widths()}

    def counts(self, table: pa.Table) -> Blocks:
        """`sets`: labels in both, predicted, gold. `level/<k>`: is the label right there, is there one. Else as in
        classification."""
        gold, prediction = self.labels.indices(table)  # each (N,)
        paths = self.paths
        shared = np.array([[len({*p} & {*g}) for g in paths] for p in paths])  # (C, C)
        sizes = np.array([len(path) for path in paths])
        places = {name: i for i, name in enumerate(sorted({name for path in paths for name in path}))}
        grid = np.full((len(paths), self.levels), -1)
        for row, path in zip(grid, paths, strict=True):
            row[: len(path)] = [places[name] for name in path]
        there = grid[gold] >= 0  # (N, D)
        right = there & (grid[gold] == grid[prediction])
        columns = [shared[prediction, gold], sizes[prediction], sizes[gold]]
        return {
            **self.labels.counts(table),
            "sets": np.column_stack(columns).astype(np.float64),
            **{f"level/{k + 1}": np.column_stack([right[:, k], there[:, k]]).astype(np.float64)
               for k in range(self.levels)},
        }  # fmt: skip

    def formula(self, name: str) -> Formula | None:
        if name in PARTS:
            return Formula(("sets",), lambda sums: precision_recall_f1(sums)[..., PARTS.index(name)])
        part, _, level = name.partition("/")
        if part == LEVEL:
            blocks = [f"level/{k + 1}" for k in range(self.levels)]
            if level and f"level/{level}" not in blocks:
                return None
            return Formula((f"level/{level}",), ratio) if level else Formula(tuple(blocks), _mean_of_levels)
        return self.labels.formula(name)

    def reported(self, sums: Blocks) -> list[str]:
        plain = [name for name in self.labels.reported(sums) if name not in LEFT_OUT]
        return [*(score.name for score in self.scores[:4]), *(f"{LEVEL}/{k + 1}" for k in range(self.levels)), *plain]

    def confidence(self, table: pa.Table) -> Floats | None:
        """The probability of the label that was predicted."""
        if "probabilities" not in table.column_names:
            return None
        chosen: Floats = self.labels.probabilities(table)[np.arange(table.num_rows), self.labels.indices(table)[1]]
        return chosen

    def own_cuts(self, table: pa.Table) -> Iterator[Cut]:
        tops = {path[-1]: path[0] for path in self.paths}
        gold = table.column("gold").to_pylist()
        yield from value_cuts("gold at the top level", [tops[label] for label in gold], most=classification.MOST_LABELS)
        yield from self.labels.own_cuts(table)


LEFT_OUT = ("precision", "recall", "mcc")


def _mean_of_levels(sums: Floats) -> Floats:
    """From sums (..., 2 D)."""
    by_level = sums.reshape(*sums.shape[:-1], -1, 2)
    return np.asarray((by_level[..., 0] / np.maximum(by_level[..., 1], 1)).mean(axis=-1))
