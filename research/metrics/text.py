"""Generated text, scored by several metrics side by side, and by what the outputs look like.

`settings["metrics"]` names them: the first is the main one, whose score of an example sorts the error pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from research.metrics import answers, bertscore, bleu, chrf, metric_class, outputs, rouge, ter
from research.metrics.base import BaseMetric, Blocks, Counts, Formula, Selection
from research.metrics.baselines import Baselines
from research.metrics.examples import Floats, words
from research.metrics.references import references
from research.metrics.score import Score
from research.metrics.slicing import Cut, quarters, value_cuts
from research.metrics.text_baselines import Answers

MOST_SHOWN = 8  # examples of a selection


class Metric(BaseMetric):
    """Each part's counts and formulas under its own name; see the parts for their settings and columns."""

    # those of all parts, for what has no settings to read; an instance has those of its own parts
    scores = tuple(
        score for part in (bleu, chrf, ter, rouge, answers, bertscore, outputs) for score in part.Metric.scores
    )
    texts = ("question", "source", "context")
    lengths = ("question", "source", "context")
    columns = ("target", "answers", "ended", "stopped_by", "other_predictions", "bertscore")

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        names = dict.fromkeys([*settings["metrics"], "outputs"])
        self.own: dict[str, BaseMetric] = {name: metric_class(name)(settings) for name in names}
        self.scores = tuple(score for part in self.own.values() for score in part.scores)

    @classmethod
    def scores_with(cls, keys: Any) -> Sequence[Score]:
        return [score for name in dict.fromkeys([*keys.metrics, "outputs"]) for score in metric_class(name).scores]

    @property
    def main(self) -> BaseMetric:
        return next(iter(self.own.values()))

    @property
    def signature(self) -> str:
        return "; ".join(part.signature for part in self.own.values())

    @property
    def sentence(self) -> str:
        return ", ".join(part.sentence for name, part in self.own.items() if name != "outputs")

    def widths(self) -> dict[str, int]:
        return {f"{name}.{block}": n for name, part in self.own.items() for block, n in part.widths().items()}

    def counts(self, table: pa.Table) -> Blocks:
        return {f"{name}.{block}": n for name, part in self.own.items() for block, n in part.counts(table).items()}

    def formula(self, name: str) -> Formula | None:
        for part_name, part in self.own.items():
            if found := part.formula(name):
                return Formula(tuple(f"{part_name}.{block}" for block in found.blocks), found.of)
        return None

    def reported(self, sums: Blocks) -> list[str]:
        found = []
        for name, part in self.own.items():
            sums_of_part = {block: sums[f"{name}.{block}"] for block in part.widths()}
            found += part.reported(sums_of_part)
        return found

    def count(self, table: pa.Table, name: str) -> Counts:
        """The counts behind one score, of the part that has it alone: other scorers need not run."""
        for part in self.own.values():
            if part.formula(name):
                return part.count(table, name)
        return super().count(table, name)

    def baselines(self, table: pa.Table, train: pa.Table | None = None) -> Baselines:
        """Those of all parts, each with the scores of all."""
        said = [name for name in ("ended", "stopped_by", "other_predictions") if name in table.column_names]
        return super().baselines(table.drop_columns(said), train)

    def baseline_answers(self, table: pa.Table, train: pa.Table | None) -> Answers:
        found: Answers = {}
        for part in self.own.values():
            found |= part.baseline_answers(table, train)
        return found

    def example_scores(self, table: pa.Table) -> Floats:
        return self.main.example_scores(table)

    def shown(self, table: pa.Table) -> tuple[list[str], list[str]]:
        predictions = [str(text) for text in table.column("prediction").to_pylist()]
        return [" | ".join(golds) for golds in references(table)], predictions

    def own_cuts(self, table: pa.Table) -> Iterator[Cut]:
        lengths = [words(golds[0]) for golds in references(table)]
        yield from quarters("length of reference (words)", np.array(lengths, dtype=np.float64))
        if "ended" in table.column_names:
            ended = table.column("ended").to_pylist()
            yield from value_cuts("output", ["ended by itself" if each else "cut at the limit" for each in ended])

    def selections(self, table: pa.Table) -> Iterator[Selection]:
        """The best outputs, the longest, and those that the limit cut off."""
        scores = self.example_scores(table)
        lengths = np.array([words(text) for text in table.column("prediction").to_pylist()], dtype=np.float64)
        yield Selection("Best examples", "score", scores, np.argsort(-scores, kind="stable")[:MOST_SHOWN])
        yield Selection("Longest outputs", "words", lengths, np.argsort(-lengths, kind="stable")[:MOST_SHOWN], 0)
        if "ended" in table.column_names:
            cut = np.flatnonzero(~np.array(table.column("ended").to_pylist(), dtype=bool))
            if len(cut):
                yield Selection("Outputs cut at the limit", "score", scores, cut[:MOST_SHOWN])
