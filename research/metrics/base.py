"""A metric: what each example counts, and the scores that follow from the sums of those counts.

Every file of this folder with a class `Metric` is one, found by its name. It owns all that is special about it: its
scores, their names, ranges and directions, the counts, which examples are right, classes, confusions, slices and how a
prediction is shown. Training, tests of significance and error analysis ask through this interface.

A subclass must give `scores`, `signature`, `sentence`, `widths`, `counts`, `formula` and `reported`; the rest has
defaults that serve any predictions table with the columns id, gold and prediction.

Legend: N examples, K counts, R runs, P predictions that have a confidence of their own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from research.common.errors import UserError
from research.metrics.baselines import Baselines, answering, label_baselines
from research.metrics.examples import Examples, Floats, joined
from research.metrics.score import Score, score_named
from research.metrics.slicing import Cut, Part, column_cuts, length_cuts

Indices = NDArray[np.intp]
Blocks = Mapping[str, Floats]  # name -> counts of the examples (N, K), or their sums (K,)
CHUNK_ROWS = 8192  # of a table that are counted at a time


@dataclass(frozen=True)
class Formula:
    """A score as a function of summed counts."""

    blocks: tuple[str, ...]  # whose counts it needs, side by side
    of: Callable[[Floats], Floats]  # sums (..., K) -> score (...)


@dataclass(frozen=True)
class Counts:
    """One run's counts behind one score."""

    values: Floats  # (N, K)
    score: Callable[[Floats], Floats]  # sums (..., K) -> score (...)

    @property
    def metric(self) -> float:
        """The score of all examples."""
        return float(self.score(self.values.sum(axis=0)))


@dataclass(frozen=True)
class Selection:
    """Examples of one run that error analysis shows side by side."""

    title: str
    what: str  # the numbers are
    numbers: Floats  # (N,)
    rows: Indices  # which examples, in order
    decimals: int = 2  # of the numbers


class BaseMetric(ABC):
    """A metric of one task's predictions. `settings` are the metadata of the predictions file."""

    scores: tuple[Score, ...]  # of the class; the first is the main one
    has_labels: ClassVar[bool] = False  # gold and prediction are one label each
    texts: ClassVar[tuple[str, ...]] = ("text",)  # columns that show an example, side by side
    lengths: ClassVar[tuple[str, ...]] = ("text",)  # columns by whose length the examples are cut
    columns: ClassVar[tuple[str, ...]] = ()  # the task's other columns; what is left is the data's own
    unit: ClassVar[str] = "predictions"  # what has a confidence of its own

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    @classmethod
    def scores_with(cls, keys: Any) -> Sequence[Score]:
        """The scores of an experiment with these keys of its task, before there are data."""
        return cls.scores

    # --- what it is -----------------------------------------------------------------------------------

    @property
    @abstractmethod
    def signature(self) -> str:
        """All that decides the numbers, in one line for a footnote: `entities|average:micro|reading:conlleval`."""

    @property
    @abstractmethod
    def sentence(self) -> str:
        """How a paper describes it: `entity-level F1 by the rules of conlleval`."""

    def score_named(self, name: str) -> Score:
        """The score of a name; `f1/PER` is the one of a class. Raises UserError for an unknown name."""
        return score_named(self.scores, name)

    # --- counts and scores ----------------------------------------------------------------------------

    @abstractmethod
    def widths(self) -> dict[str, int]:
        """Block -> how many counts it has, for what the settings declare."""

    @abstractmethod
    def counts(self, table: pa.Table) -> Blocks:
        """What each example counts, by block (N, K); their sums over any set of examples give its scores."""

    @abstractmethod
    def formula(self, name: str) -> Formula | None:
        """How a score follows from summed counts; None for one that is no function of sums."""

    @abstractmethod
    def reported(self, sums: Blocks) -> list[str]:
        """The names of the scores of a table with these sums, classes among them."""

    def beside(self, table: pa.Table) -> dict[str, float]:
        """Scores that are no function of sums, such as those at the best threshold."""
        return {}

    def score(self, table: pa.Table) -> dict[str, float]:
        """All scores of a predictions table. Raises ValueError for an empty table or one that does not fit."""
        return {**self.scores_of(self.sums(table)), **self.beside(table)}

    def sums(self, table: pa.Table, before: Blocks | None = None) -> dict[str, Floats]:
        """Summed counts (K,) of a table, added to those `before`, one example after another as official scorers do."""
        if not table.num_rows:
            raise ValueError("there are no examples to score")
        sums = dict(before or {})
        for start in range(0, table.num_rows, CHUNK_ROWS):
            for name, values in self.counts(table.slice(start, CHUNK_ROWS)).items():
                first = sums[name][None] if name in sums else values[:0]
                sums[name] = np.cumsum(np.concatenate([first, values]), axis=0)[-1]
        return sums

    def scores_of(self, sums: Blocks) -> dict[str, float]:
        """All scores that follow from summed counts."""
        scores = {}
        for name in self.reported(sums):
            formula = self._formula(name)
            scores[name] = float(formula.of(np.concatenate([sums[block] for block in formula.blocks])))
        return scores

    def count(self, table: pa.Table, name: str) -> Counts:
        """The counts behind one score. Raises UserError for a score that is no function of sums."""
        formula = self._formula(name)
        blocks = self.counts(table)
        return Counts(np.concatenate([blocks[block] for block in formula.blocks], axis=1), formula.of)

    def _formula(self, name: str) -> Formula:
        formula = self.formula(name)
        if formula is None:
            known = ", ".join(score.name for score in self.scores if self.formula(score.name))
            raise UserError(
                f"Resampling '{name}' is not possible: it is no function of counts of examples; {known} are."
            )
        return formula

    def table(self, predictions: Sequence[Any], golds: Sequence[Any], **columns: Any) -> pa.Table:
        """Predictions and gold answers as a predictions table, for callers that have no run."""
        if len(predictions) != len(golds):
            raise ValueError(f"{len(golds)} gold answers but {len(predictions)} predictions")
        ids = [str(i) for i in range(len(golds))]
        return pa.table({"id": ids, "gold": list(golds), "prediction": list(predictions), **columns})

    def baselines(self, table: pa.Table, train: pa.Table | None = None) -> Baselines:
        """What answers score on a table that know nothing of the texts, or but the gold answers of `train`, a table
        that `TaskData.gold_table` makes; by default the most frequent and a random label, and `baseline_answers`."""
        answers = {
            name: self.score(answering(table, each)) for name, each in self.baseline_answers(table, train).items()
        }
        return {**(label_baselines(self, table) if self.has_labels else {}), **answers}

    def baseline_answers(self, table: pa.Table, train: pa.Table | None) -> dict[str, list[Any]]:
        """Baseline -> what it answers to each example, where that is a prediction as a model gives one."""
        return {}

    # --- example by example ---------------------------------------------------------------------------

    def examples(self, table: pa.Table) -> Examples:
        """What a table says of each example: its score, the confidence, and how it is shown."""
        own = self.example_scores(table)
        confidence, belief = self.confidence(table), self.belief(table)
        gold, prediction = self.shown(table)
        return Examples(
            ids=table.column("id").to_pylist(),
            score=own,
            confidence=np.full(len(own), np.nan) if confidence is None else confidence,
            belief=own if belief is None else belief,
            text=self.text(table),
            gold=gold,
            prediction=prediction,
            has_labels=self.has_labels,
        )

    def example_scores(self, table: pa.Table) -> Floats:
        """Each example's own score (N,), 1 where it is right: by default whether the prediction equals the gold."""
        rows = zip(table.column("gold").to_pylist(), table.column("prediction").to_pylist(), strict=True)
        return np.array([gold == prediction for gold, prediction in rows], dtype=np.float64)

    def confidence(self, table: pa.Table) -> Floats | None:
        """How sure each prediction is (N,), NaN where that is not known; None where the task never tells."""
        return None

    def belief(self, table: pa.Table) -> Floats | None:
        """The probability of each gold answer (N,); None where the task does not tell, and the score stands for it."""
        return None

    def text(self, table: pa.Table) -> list[str]:
        """Each example's input, as error analysis shows it."""
        return joined(table, self.texts)

    def shown(self, table: pa.Table) -> tuple[list[str], list[str]]:
        """Gold answers and predictions as text, several of an example between bars."""
        gold, found = (
            [" | ".join(map(str, x)) if isinstance(x, list) else str(x) for x in table.column(name).to_pylist()]
            for name in ("gold", "prediction")
        )
        return gold, found

    def claims(self, table: pa.Table) -> tuple[Floats, Floats]:
        """Confidence (P,) of each `unit`, and whether it was right (P,)."""
        examples = self.examples(table)
        return examples.confidence, examples.right.astype(np.float64)

    def confusion(self, table: pa.Table) -> Counter[tuple[str, str]] | None:
        """(gold class, predicted class) -> how often; None for a task without classes."""
        return None

    @property
    def confused(self) -> str:
        """What `confusion` counts, for captions."""
        return "examples"

    def selections(self, table: pa.Table) -> Iterator[Selection]:
        """Examples to show beside those of the lowest scores."""
        return iter(())

    # --- slices and kinds of error --------------------------------------------------------------------

    def own_cuts(self, table: pa.Table) -> Iterator[Cut]:
        """Ways to cut the examples that belong to the task."""
        return iter(())

    def cuts(self, table: pa.Table) -> Iterator[Cut]:
        """Every way to cut the examples that their columns allow: lengths, the task's own, the data's columns."""
        for name in self.lengths:
            yield from length_cuts("length" if len(self.lengths) == 1 else f"length of {name}", table, name)
        yield from self.own_cuts(table)
        for name in sorted(set(table.column_names) - {"id", "gold", "prediction", *self.texts, *self.columns}):
            yield from column_cuts(name, table.column(name))

    def parts(self, tables: Sequence[pa.Table], train: pa.Table | None = None) -> Iterator[Part]:
        """Parts of the examples with the runs' counts on them; `tables` hold the same examples in the same order.

        `train`: predictions on the training split, for what depends on what was seen there.
        """
        main = self.scores[0]
        counts = [self.count(table, main.name) for table in tables]
        values = np.stack([each.values for each in counts])  # (R, N, K)
        for by, value, mask in self.cuts(tables[0]):
            yield Part(by, value, int(mask.sum()), main.name, main.is_proportion, values[:, mask], counts[0].score)

    def error_kinds(self, table: pa.Table) -> dict[str, Counter[str]]:
        """Kind of error -> class -> how many; empty for a task whose errors have no kinds. `correct` may be one."""
        return {}

    @property
    def error_legend(self) -> str:
        """What the kinds of `error_kinds` mean."""
        return ""


# --- formulas that several metrics share --------------------------------------------------------------


def ratio(sums: Floats) -> Floats:
    """First sum over second (..., 2); 0 where there is nothing to divide by."""
    return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1))


def precision_recall_f1(counts: Floats) -> Floats:
    """Precision, recall and F1 (..., 3) from true positives, predicted and gold (..., 3); 0 / 0 is 0."""
    true_positives, predicted, gold = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    # A count of 0 in a denominator has a numerator of 0: dividing by 1 instead gives the 0 that is meant.
    precision = true_positives / np.maximum(predicted, 1)
    recall = true_positives / np.maximum(gold, 1)
    total = precision + recall
    f1 = 2 * precision * recall / np.where(total > 0, total, 1)
    return np.stack([precision, recall, f1], axis=-1)
