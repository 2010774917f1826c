"""Scores of intents and slots together: sentence accuracy, intent accuracy, slot F1 by the rules of conlleval.

A sentence is right where its intent and all its tags are (Goo et al. 2018, Slot-Gated Modeling for Joint Slot Filling
and Intent Prediction: overall, or semantic frame, accuracy). Slots are entities; see research.metrics.tags.

Legend: N sentences, K counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from research.metrics.base import BaseMetric, Blocks, Formula, precision_recall_f1, ratio
from research.metrics.entities import entity_list
from research.metrics.entity_types import PARTS, counts_by_type, declared_types, scores_by_type
from research.metrics.examples import Floats
from research.metrics.score import Score
from research.metrics.slicing import Cut, value_cuts
from research.metrics.tags import lenient_entities

MOST_INTENTS = 100  # of which each is a slice


class Metric(BaseMetric):
    """`gold` and `prediction` hold an `intent` and a tag for each word, `tags`.

    `accuracy` is of whole sentences, `f1`, `precision` and `recall` are of slots, micro-averaged; by slot:
    `f1/<TYPE>`. Ratios with denominator 0 are 0.
    """

    scores = (
        Score("accuracy", "sentence accuracy", is_proportion=True),
        Score("intent_accuracy", "intent accuracy"),
        Score("f1", "slot F1"),
        Score("precision", "slot precision"),
        Score("recall", "slot recall"),
    )
    texts = lengths = ("tokens",)
    columns = ("tags", "label", "probabilities", "confidence")
    unit = "sentences"
    signature = "intent_slots|average:micro|reading:conlleval"
    sentence = "sentence accuracy, intent accuracy and micro-averaged slot F1 by the rules of conlleval"

    @property
    def types(self) -> list[str]:
        """The slots that the declared tags have."""
        return declared_types(self.settings.get("tags", ()))

    def widths(self) -> dict[str, int]:
        return {"sentences": 2, "intents": 2, "slots": 3, **{f"type/{kind}": 3 for kind in self.types}}

    def counts(self, table: pa.Table) -> dict[str, Floats]:
        """Right sentences and all; right intents and all; true positives, predicted and gold slots, also by type.

        Raises ValueError where the numbers of tags of a sentence differ.
        """
        rows = list(zip(table.column("gold").to_pylist(), table.column("prediction").to_pylist(), strict=True))
        sentences, intents = np.ones((len(rows), 2)), np.ones((len(rows), 2))
        for i, (gold, found) in enumerate(rows):
            if len(gold["tags"]) != len(found["tags"]):
                raise ValueError(f"sentence {i} has {len(gold['tags'])} gold tags but {len(found['tags'])} predicted")
            intents[i, 0] = gold["intent"] == found["intent"]
            sentences[i, 0] = gold == found
        wanted, given = ([row[side]["tags"] for row in rows] for side in (0, 1))
        return {**counts_by_type(wanted, given, "slots"), "sentences": sentences, "intents": intents}

    def formula(self, name: str) -> Formula | None:
        part, _, kind = name.partition("/")
        if name in ("accuracy", "intent_accuracy"):
            return Formula(("sentences" if name == "accuracy" else "intents",), ratio)
        block = f"type/{kind}" if kind else "slots"
        if kind and part == "support":
            return Formula((block,), lambda sums: sums[..., 2])
        if part not in PARTS:
            return None
        return Formula((block,), lambda sums: precision_recall_f1(sums)[..., PARTS.index(part)])

    def reported(self, sums: Blocks) -> list[str]:
        return [*(score.name for score in self.scores), *scores_by_type(sums)]

    def confidence(self, table: pa.Table) -> Floats | None:
        """The probability of the least sure decision of each sentence."""
        if not {"probabilities", "confidence"} <= set(table.column_names):
            return None
        rows = zip(table.column("probabilities").to_pylist(), table.column("confidence").to_pylist(), strict=True)
        return np.array([min(max(intents), *words) if words else max(intents) for intents, words in rows])

    def shown(self, table: pa.Table) -> tuple[list[str], list[str]]:
        def said(row: dict[str, Any], tokens: list[str]) -> str:
            return f"{row['intent']}: {entity_list(tokens, lenient_entities(row['tags']))}"

        tokens = table.column("tokens").to_pylist()
        gold, found = (
            [said(row, words) for row, words in zip(table.column(name).to_pylist(), tokens, strict=True)]
            for name in ("gold", "prediction")
        )
        return gold, found

    def confusion(self, table: pa.Table) -> Counter[tuple[str, str]]:
        sides = ([row["intent"] for row in table.column(name).to_pylist()] for name in ("gold", "prediction"))
        return Counter(zip(*sides, strict=True))

    @property
    def confused(self) -> str:
        return "intents"

    def own_cuts(self, table: pa.Table) -> Iterator[Cut]:
        intents = [row["intent"] for row in table.column("gold").to_pylist()]
        yield from value_cuts("gold intent", intents, most=MOST_INTENTS)
