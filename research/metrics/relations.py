"""Scores of relation classification by the official scorer of SemEval-2010 Task 8 (Hendrickx et al. 2010, v1.2).

A label is a relation with its direction, `Cause-Effect(e2,e1)`, or one that stands for no relation, `Other`. The
official score is the macro-averaged F1 of the (9+1)-way evaluation that takes directionality into account: a relation
predicted in the wrong direction counts as predicted, and as one of the relation, but not as found.

Legend: N examples, C directed labels, K counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from research.metrics import classification
from research.metrics.base import BaseMetric, Blocks, Formula, precision_recall_f1, ratio
from research.metrics.examples import Floats
from research.metrics.of_labels import OfLabels
from research.metrics.score import Score
from research.metrics.slicing import Cut, value_cuts

PARTS = ("precision", "recall", "f1")
_DIRECTION = re.compile(r"\((e[12]),(e[12])\)$")


class Metric(OfLabels, BaseMetric):
    """Relations found in the right direction; `settings`: "labels", and "other", the label of no relation.

    `f1`, `precision` and `recall` are means over the relations that occur in the gold labels, without `other`;
    `micro_*` are of all of them together; `accuracy` is that of the directed labels, `other` among them. By relation:
    `f1/Cause-Effect` and so on. Ratios with denominator 0 are 0.
    """

    scores = (
        Score("f1", "macro F1"),
        Score("precision", "macro precision"),
        Score("recall", "macro recall"),
        Score("micro_f1", "micro F1"),
        Score("micro_precision", "micro precision"),
        Score("micro_recall", "micro recall"),
        Score("accuracy", "accuracy", is_proportion=True),
        Score("calibration_error", "ECE", smaller_is_better=True),
    )
    has_labels = True
    columns = ("label", "probabilities", "e1", "e2")

    @property
    def other(self) -> str:
        return str(self.settings.get("other", "Other"))

    @property
    def relations(self) -> list[str]:
        """The declared relations without their direction and without `other`, sorted."""
        return sorted({relation_of(label) for label in self.settings["labels"]} - {self.other})

    @property
    def signature(self) -> str:
        return f"relations|average:macro|relations:{len(self.relations)} of gold|without:{self.other}|direction:counts"

    @property
    def sentence(self) -> str:
        return (
            f"macro-averaged F1 over the relations without {self.other}, directions taken into account, by the rules "
            "of the official scorer of SemEval-2010 Task 8"
        )

    def widths(self) -> dict[str, int]:
        return {"examples": 2, "bins": self.labels.widths()["bins"], **{f"relation/{r}": 3 for r in self.relations}}

    def counts(self, table: pa.Table) -> dict[str, Floats]:
        """`relation/<R>`: found in the right direction, predicted in any, gold in any. Else as in classification.

        Raises ValueError for a label that is not declared.
        """
        blocks = self.labels.counts(table)
        labels = list(self.settings["labels"])
        gold, prediction = self.labels.indices(table)  # each (N,)
        relations = np.array([relation_of(label) for label in labels])
        expected, found, right = relations[gold], relations[prediction], gold == prediction  # each (N,)
        counts: dict[str, Floats] = {name: blocks[name] for name in ("examples", "bins") if name in blocks}
        for relation in self.relations:
            of_gold, of_prediction = expected == relation, found == relation
            columns = [of_gold & right, of_prediction, of_gold]
            counts[f"relation/{relation}"] = np.column_stack(columns).astype(np.float64)
        return counts

    def formula(self, name: str) -> Formula | None:
        if name == "accuracy":
            return Formula(("examples",), ratio)
        if name == "calibration_error":
            return self.labels.formula(name)
        part, _, relation = name.removeprefix("micro_").partition("/")
        if relation:
            if relation not in self.relations or part not in (*PARTS, "support"):
                return None
            return Formula((f"relation/{relation}",), lambda sums: _one(sums, part))
        if part not in PARTS:
            return None
        mean = _micro if name.startswith("micro_") else _macro
        return Formula(tuple(f"relation/{r}" for r in self.relations), lambda sums: mean(sums, PARTS.index(part)))

    def reported(self, sums: Blocks) -> list[str]:
        names = [score.name for score in self.scores if score.name != "calibration_error" or "bins" in sums]
        return names + [f"{part}/{relation}" for relation in self.relations for part in (*PARTS, "support")]

    def own_cuts(self, table: pa.Table) -> Iterator[Cut]:
        gold = table.column("gold").to_pylist()
        yield from value_cuts("gold relation", [relation_of(label) for label in gold], most=classification.MOST_LABELS)
        yield from value_cuts("direction", [direction_of(label) for label in gold])

    def error_kinds(self, table: pa.Table) -> dict[str, Counter[str]]:
        kinds: dict[str, Counter[str]] = {kind: Counter() for kind in ("correct", *ERRORS)}
        for gold, prediction in zip(*(table.column(name).to_pylist() for name in ("gold", "prediction")), strict=True):
            kind = "correct" if gold == prediction else self._error(relation_of(gold), relation_of(prediction))
            kinds[kind][relation_of(gold)] += 1
        return kinds

    def _error(self, gold: str, prediction: str) -> str:
        if gold == prediction:
            return "direction"
        return "missed" if prediction == self.other else "spurious" if gold == self.other else "relation"

    @property
    def error_legend(self) -> str:
        return (
            f"By gold relation. Direction: right relation, wrong direction; relation: another relation; missed: "
            f"{self.other} predicted; spurious: {self.other} taken for a relation."
        )


ERRORS = ("direction", "relation", "missed", "spurious")


def relation_of(label: str) -> str:
    """`Cause-Effect(e2,e1)` -> `Cause-Effect`."""
    return _DIRECTION.sub("", label)


def direction_of(label: str) -> str:
    """`Cause-Effect(e2,e1)` -> `e2 to e1`."""
    found = _DIRECTION.search(label)
    return f"{found[1]} to {found[2]}" if found else "none"


def _one(sums: Floats, part: str) -> Floats:
    """A score of one relation from sums (..., 3)."""
    return sums[..., 2] if part == "support" else precision_recall_f1(sums)[..., PARTS.index(part)]


def _macro(sums: Floats, part: int) -> Floats:
    """Mean over the relations that occur in the gold labels, from sums (..., 3 relations)."""
    by_relation = sums.reshape(*sums.shape[:-1], -1, 3)
    occurs = by_relation[..., 2] > 0
    values = precision_recall_f1(by_relation)[..., part]
    return np.asarray((values * occurs).sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1))


def _micro(sums: Floats, part: int) -> Floats:
    """Of the relations that occur in the gold labels together."""
    by_relation = sums.reshape(*sums.shape[:-1], -1, 3)
    together = (by_relation * (by_relation[..., 2:] > 0)).sum(axis=-2)
    return precision_recall_f1(together)[..., part]
