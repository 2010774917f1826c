"""Entity-level scores of whole sentences, by the rules of conlleval and of strict IOB2.

See research.metrics.tags for the two readings of a tag sequence.

Legend: N sentences, R runs, K counts, W words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from research.metrics import entity_errors
from research.metrics.base import BaseMetric, Blocks, Formula, precision_recall_f1, ratio
from research.metrics.entity_baselines import known_phrases, tagged_again
from research.metrics.entity_slices import classes_of_entities, recall_counts
from research.metrics.entity_types import PARTS, counts_by_type, declared_types, scores_by_type
from research.metrics.examples import NOTHING, Floats
from research.metrics.score import Score
from research.metrics.slicing import Part
from research.metrics.tags import Entity, lenient_entities, strict_entities


class Metric(BaseMetric):
    """Entities found, micro-averaged over all sentences; the columns gold and prediction hold a tag per word.

    `precision`, `recall` and `f1` are of the lenient reading (conlleval; seqeval's default mode), `strict_*` of strict
    IOB2 (seqeval's mode="strict"), `accuracy` is the share of words whose tags are equal. By type, lenient:
    `f1/<TYPE>` and so on. Ratios with denominator 0 are 0.
    """

    scores = (
        Score("f1", "micro F1"),
        Score("precision", "micro precision"),
        Score("recall", "micro recall"),
        Score("strict_precision", "strict micro precision"),
        Score("strict_recall", "strict micro recall"),
        Score("strict_f1", "strict micro F1"),
        Score("accuracy", "word accuracy"),
    )
    texts = lengths = ("tokens",)
    columns = ("tags", "confidence", "text", "entities")
    unit = "words"
    signature = "entities|average:micro|reading:conlleval, strict IOB2"
    sentence = "entity-level micro F1 over whole sentences by the rules of conlleval, and of strict IOB2 beside it"
    confused = "entities, “none” standing for no entity that shares a word,"
    error_legend = entity_errors.LEGEND

    @property
    def types(self) -> list[str]:
        """The entity types that the declared tags have."""
        return declared_types(self.settings.get("labels", ()))

    def widths(self) -> dict[str, int]:
        return {"entities": 3, "strict": 3, "words": 2, **{f"type/{kind}": 3 for kind in self.types}}

    def counts(self, table: pa.Table) -> dict[str, Floats]:
        """True positives, predicted and gold entities, also strict and by type; equal tags and all.

        Raises ValueError when the numbers of tags differ and for a tag of no scheme.
        """
        gold, prediction = tags_of(table)
        blocks = counts_by_type(gold, prediction, "entities")
        blocks["strict"] = entity_counts(gold, prediction, strict=True).astype(np.float64)
        blocks["words"] = np.array([equal_words(*row) for row in zip(gold, prediction, strict=True)], dtype=np.float64)
        return blocks

    def formula(self, name: str) -> Formula | None:
        part, _, kind = name.removeprefix("strict_").partition("/")
        strict = name.startswith("strict_")
        if name == "accuracy":
            return Formula(("words",), ratio)
        if kind and part == "support":
            return Formula((f"type/{kind}",), lambda sums: sums[..., 2])
        if part not in PARTS or (kind and strict):
            return None
        index = PARTS.index(part)
        block = f"type/{kind}" if kind else "strict" if strict else "entities"
        return Formula((block,), lambda sums: precision_recall_f1(sums)[..., index])

    def reported(self, sums: Blocks) -> list[str]:
        return [f"{strict}{part}" for strict in ("", "strict_") for part in PARTS] + ["accuracy", *scores_by_type(sums)]

    def baseline_answers(self, table: pa.Table, train: pa.Table | None) -> dict[str, list[Any]]:
        """No entity, and those of the training data found again (`entity_baselines`)."""
        sentences = table.column("tokens").to_pylist() if "tokens" in table.column_names else []
        answers = {"no entity": [["O"] * len(tags) for tags in table.column("gold").to_pylist()]}
        if train is not None and sentences:
            answers["entities of the training data"] = tagged_again(sentences, known_phrases(train))
        return answers

    def example_scores(self, table: pa.Table) -> Floats:
        """F1 of each sentence; 1 where there is nothing to find and nothing found."""
        counts = entity_counts(*tags_of(table))  # (N, 3)
        scores: Floats = np.where(counts[:, 1:].sum(1) > 0, precision_recall_f1(counts)[:, 2], 1.0)
        return scores

    def confidence(self, table: pa.Table) -> Floats:
        rows = zip(*(table.column(name).to_pylist() for name in ("gold", "prediction", "confidence")), strict=True)
        return np.array([sentence_confidence(*row) for row in rows])

    def text(self, table: pa.Table) -> list[str]:
        return [" ".join(words) for words in table.column("tokens").to_pylist()]

    def shown(self, table: pa.Table) -> tuple[list[str], list[str]]:
        tokens = table.column("tokens").to_pylist()
        gold, prediction = (
            [entity_list(words, lenient_entities(tags)) for words, tags in zip(tokens, column, strict=True)]
            for column in tags_of(table)
        )
        return gold, prediction

    def claims(self, table: pa.Table) -> tuple[Floats, Floats]:
        """Of each word."""
        flat = {name: table.column(name).combine_chunks().flatten() for name in ("gold", "prediction", "confidence")}
        values = {name: array.to_numpy(zero_copy_only=False) for name, array in flat.items()}
        right = values["gold"] == values["prediction"]
        return values["confidence"].astype(np.float64), right.astype(np.float64)

    def confusion(self, table: pa.Table) -> Counter[tuple[str, str]]:
        return entity_errors.confusion(entity_errors.all_pairs(*tags_of(table)))

    def error_kinds(self, table: pa.Table) -> dict[str, Counter[str]]:
        return entity_errors.counts(entity_errors.all_pairs(*tags_of(table)))

    def parts(self, tables: Sequence[pa.Table], train: pa.Table | None = None) -> Iterator[Part]:
        """Besides slices of sentences: F1 of each entity type; recall of long, rare and unseen entities."""
        yield from super().parts(tables, train)
        counts = [self.counts(table) for table in tables]
        expected = [lenient_entities(tags) for tags in tags_of(tables[0])[0]]
        sizes = Counter(entity[0] for row in expected for entity in row)
        for kind, size in sorted(sizes.items()):
            values = np.stack([each[f"type/{kind}"] for each in counts])  # (R, N, 3)
            mask = np.any(values > 0, axis=(0, 2))
            formula = self._formula(f"f1/{kind}")
            yield Part("entity type", kind, size, "f1", False, values[:, mask], formula.of)
        found = [[set(lenient_entities(tags)) for tags in tags_of(table)[1]] for table in tables]
        for by, classes in classes_of_entities(tables[0].column("tokens").to_pylist(), expected, train):
            for value in sorted({each for row in classes for each in row}):
                values = np.stack([recall_counts(value, classes, expected, run) for run in found])  # (R, N, 2)
                mask = values[0, :, 1] > 0
                yield Part(by, value, int(values[0, :, 1].sum()), "recall", False, values[:, mask], ratio)


def tags_of(table: pa.Table) -> tuple[list[list[str]], list[list[str]]]:
    """Gold and predicted tags of each sentence."""
    return table.column("gold").to_pylist(), table.column("prediction").to_pylist()


def entity_counts(
    gold: Sequence[Sequence[str]], prediction: Sequence[Sequence[str]], *, strict: bool = False
) -> np.ndarray:
    """Per sentence the number of true positives, predicted entities and gold entities, (N, 3).

    Raises ValueError when the numbers of sentences or of words differ.
    """
    _check_lengths(gold, prediction)
    read = strict_entities if strict else lenient_entities
    counts = np.zeros((len(gold), 3), dtype=np.int64)
    for row, tags, other_tags in zip(counts, gold, prediction, strict=True):
        expected, found = set(read(tags)), set(read(other_tags))
        row[:] = len(expected & found), len(found), len(expected)
    return counts


def equal_words(gold: Sequence[str], prediction: Sequence[str]) -> tuple[int, int]:
    """How many words of a sentence have equal tags, and how many there are."""
    return sum(map(str.__eq__, gold, prediction)), len(gold)


def sentence_confidence(gold: Sequence[str], prediction: Sequence[str], confidence: Sequence[float]) -> float:
    """The surest wrong tag; of a sentence without one, the least sure tag."""
    wrong = [c for g, p, c in zip(gold, prediction, confidence, strict=True) if g != p]
    return max(wrong) if wrong else min(confidence, default=1.0)


def entity_list(tokens: Sequence[str], entities: Sequence[Entity]) -> str:
    """`Oslo [LOC], Acme Ltd [ORG]`."""
    return ", ".join(f"{' '.join(tokens[start:end])} [{kind}]" for kind, start, end in entities) or NOTHING


def _check_lengths(gold: Sequence[Sequence[str]], prediction: Sequence[Sequence[str]]) -> None:
    if len(gold) != len(prediction):
        raise ValueError(f"{len(gold)} gold sentences but {len(prediction)} predictions")
    for number, (tags, other_tags) in enumerate(zip(gold, prediction, strict=True)):
        if len(tags) != len(other_tags):
            raise ValueError(f"sentence {number} has {len(tags)} gold tags but {len(other_tags)} predicted")
