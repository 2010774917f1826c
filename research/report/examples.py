"""What a predictions table says of each example, in the same form for every task.

Legend: N examples, C classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from research.metrics.entities import Entity, entity_counts, lenient_entities, precision_recall_f1
from research.metrics.squad import per_question
from research.tracking import predictions

Floats = NDArray[np.float64]
NOTHING = "(none)"
SCORERS = ("classification", "entities", "squad")
# A character of a script without spaces is a word, so is a run of others.
_WORD = re.compile(r"[぀-ヿ㐀-鿿豈-﫿]|[^\s぀-ヿ㐀-鿿豈-﫿]+")


@dataclass(frozen=True)
class Examples:
    """The examples of one run and split."""

    ids: list[str]
    metric: str  # what `score` is: accuracy or f1
    score: Floats  # (N,) each example's own, 0 to 1
    confidence: Floats  # (N,) in the prediction; where it is wrong, in what is wrong of it; NaN where not told
    belief: Floats  # (N,) probability of the gold answer; its score where the task gives no probability
    text: list[str]
    gold: list[str]
    prediction: list[str]

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,)"""
        return self.score == 1


def is_known(table: pa.Table) -> bool:
    """Can `read` read it? A new task may write predictions of another form."""
    return predictions.settings(table)["scorer"] in SCORERS


def read(table: pa.Table) -> Examples:
    """The examples of a predictions table of a known scorer."""
    how = predictions.settings(table)
    if how["scorer"] == "entities":
        return _entities(table)
    if how["scorer"] == "squad":
        return _questions(table, how)
    return _classes(table, how)


def words(text: str) -> int:
    """How many words a text has; in Chinese and Japanese each character counts as one."""
    return len(_WORD.findall(text))


def class_probabilities(table: pa.Table) -> Floats:
    """The column `probabilities` as (N, C)."""
    values = table.column("probabilities").combine_chunks().flatten().to_numpy()
    return np.asarray(values, dtype=np.float64).reshape(table.num_rows, -1)


def _classes(table: pa.Table, how: Mapping[str, Any]) -> Examples:
    gold, prediction = (table.column(name).to_pylist() for name in ("gold", "prediction"))
    right = np.array([g == p for g, p in zip(gold, prediction, strict=True)], dtype=np.float64)
    confidence, belief = np.full(len(gold), np.nan), right
    if "probabilities" in table.column_names:
        probabilities, place = class_probabilities(table), {label: i for i, label in enumerate(how["labels"])}
        confidence = probabilities.max(1)
        belief = probabilities[np.arange(len(gold)), [place[label] for label in gold]]
    texts, ids = _joined(table, ("text", "text_pair", "choices")), table.column("id").to_pylist()
    return Examples(ids, "accuracy", right, confidence, belief, texts, gold, prediction)


def _entities(table: pa.Table) -> Examples:
    names = ("id", "tokens", "gold", "prediction", "confidence")
    ids, tokens, gold, prediction, confidence = (table.column(name).to_pylist() for name in names)
    counts = entity_counts(gold, prediction)  # (N, 3)
    score = np.where(counts[:, 1:].sum(1) > 0, precision_recall_f1(counts)[:, 2], 1.0)
    sure = np.array([_word_confidence(*row) for row in zip(gold, prediction, confidence, strict=True)])
    shown = [
        [entity_list(sentence, lenient_entities(tags)) for sentence, tags in zip(tokens, column, strict=True)]
        for column in (gold, prediction)
    ]
    return Examples(ids, "f1", score, sure, score, [" ".join(row) for row in tokens], *shown)


def _word_confidence(gold: Sequence[str], prediction: Sequence[str], confidence: Sequence[float]) -> float:
    """The surest wrong tag; of a sentence without one, the least sure tag."""
    wrong = [c for g, p, c in zip(gold, prediction, confidence, strict=True) if g != p]
    return max(wrong) if wrong else min(confidence, default=1.0)


def entity_list(tokens: Sequence[str], entities: Sequence[Entity]) -> str:
    """`Oslo [LOC], Acme Ltd [ORG]`."""
    return ", ".join(f"{' '.join(tokens[start:end])} [{kind}]" for kind, start, end in entities) or NOTHING


def _questions(table: pa.Table, how: Mapping[str, Any]) -> Examples:
    ids, gold, prediction = (table.column(name).to_pylist() for name in ("id", "gold", "prediction"))
    answers = dict(zip(ids, gold, strict=True))
    _, f1 = per_question(dict(zip(ids, prediction, strict=True)), answers, how["rules"])
    sure = _answer_confidence(table, prediction, how["rules"] == "squad_v2")
    shown_gold = [" | ".join(texts) or NOTHING for texts in gold]
    shown = [text or NOTHING for text in prediction]
    return Examples(ids, "f1", f1, sure, f1, _joined(table, ("question", "context")), shown_gold, shown)


def _answer_confidence(table: pa.Table, prediction: Sequence[str], may_withhold: bool) -> Floats:
    """Softmax over the n best answers, and over no answer where there may be none: the share of what was predicted."""
    shares = []
    columns = (table.column(name).to_pylist() for name in ("n_best", "no_answer_score"))
    for answer, n_best, doubt in zip(prediction, *columns, strict=True):
        scores = np.array([each["score"] for each in n_best], dtype=np.float64)
        if not len(scores):
            shares.append(np.nan)
            continue
        weights = np.exp(scores - scores[0])
        withheld = float(np.exp(min(doubt, 50.0))) if may_withhold else 0.0
        shares.append((withheld if may_withhold and not answer else 1.0) / (weights.sum() + withheld))
    return np.array(shares)


def _joined(table: pa.Table, names: Sequence[str]) -> list[str]:
    """The text columns that there are, side by side."""
    columns = [table.column(name).to_pylist() for name in names if name in table.column_names]
    parts = zip(*columns, strict=True) if columns else ([] for _ in range(table.num_rows))
    return [" ‖ ".join(" / ".join(x) if isinstance(x, list) else str(x) for x in row if x) for row in parts]
