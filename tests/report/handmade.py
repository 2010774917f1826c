"""Small predictions tables written by hand, so that every number in a test can be checked by eye."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from research.metrics.examples import Examples
from research.tracking import predictions


def classes(
    gold: Sequence[str],
    prediction: Sequence[str],
    probabilities: Sequence[Sequence[float]],
    labels: Sequence[str] = ("no", "yes"),
    **columns: Any,
) -> pa.Table:
    texts = columns.pop("text", [f"text {i}" for i in range(len(gold))])
    reported = {"gold": gold, "prediction": prediction, "probabilities": probabilities, "text": texts}
    return _table({**reported, **columns}, {"scorer": "classification", "labels": list(labels)})


def entities(
    sentences: Sequence[tuple[str, str, str]], confidence: Sequence[Sequence[float]] | None = None
) -> pa.Table:
    """`sentences`: words, gold tags, predicted tags, each parted by blanks."""
    tokens, gold, prediction = ([row[i].split() for row in sentences] for i in range(3))
    sure = confidence or [[0.9] * len(words) for words in tokens]
    columns = {"gold": gold, "prediction": prediction, "confidence": sure, "tokens": tokens, "tags": gold}
    return _table(columns, {"scorer": "entities", "labels": []})


def questions(rows: Sequence[dict[str, Any]], rules: str = "squad", threshold: float = 0.0) -> pa.Table:
    """`rows`: gold, prediction, question, context, and what differs from a sure answer."""
    filled = [{"answer": row["prediction"], "no_answer_score": -9.0, "n_best": [], **row} for row in rows]
    columns = {name: [row[name] for row in filled] for name in filled[0]}
    return _table(columns, {"scorer": "squad", "rules": rules, "threshold": threshold})


def examples(table: pa.Table) -> Examples:
    """What the table's metric says of its examples."""
    return predictions.metric(table).examples(table)


def _table(columns: dict[str, Any], settings: dict[str, Any]) -> pa.Table:
    ids = [str(i) for i in range(len(columns["gold"]))]
    table = pa.table({"id": ids, **columns})
    return table.replace_schema_metadata({predictions.KEY: json.dumps(settings).encode()})
