"""Baselines of generated text: the source copied, its first three sentences, the most frequent training answer.

The second is lead-3 (Nallapati et al. 2017, See et al. 2017), against which summaries are held.
"""

from __future__ import annotations

import re
from collections import Counter

import pyarrow as pa

LEAD_SENTENCES = 3
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*")
Answers = dict[str, list[str]]  # baseline -> its answer to each example


def sentences(text: str) -> list[str]:
    """The text's own lines, of a single one the parts that end with . ! or ?"""
    return text.split("\n") if "\n" in text else _SENTENCE_END.split(text)


def copied_source(table: pa.Table) -> Answers:
    return {"copied source": _sources(table)} if "source" in table.column_names else {}


def lead(table: pa.Table) -> Answers:
    """The first sentences of each source; none where the table has no sources."""
    if "source" not in table.column_names:
        return {}
    return {f"lead-{LEAD_SENTENCES}": ["\n".join(sentences(text)[:LEAD_SENTENCES]) for text in _sources(table)]}


def most_frequent_answer(table: pa.Table, train: pa.Table | None) -> Answers:
    """Always the answer that the training data (column gold) have most often; none without them."""
    golds = train.column("gold").to_pylist() if train is not None else []
    known = Counter(gold if isinstance(gold, str) else gold[0] for gold in golds if gold)
    return {"most frequent answer": [known.most_common(1)[0][0]] * table.num_rows} if known else {}


def _sources(table: pa.Table) -> list[str]:
    return [text or "" for text in table.column("source").to_pylist()]
