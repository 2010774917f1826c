"""What metrics of entities count of each type.

Legend: N sentences.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from research.metrics.base import Blocks
from research.metrics.examples import Floats
from research.metrics.tags import lenient_entities

OUTSIDE = "O"
PARTS = ("precision", "recall", "f1")
Tags = Sequence[str]


def declared_types(tags: Iterable[str]) -> list[str]:
    """The types that declared tags have; `_` of one without a type."""
    return sorted({tag[2:] or "_" for tag in tags if tag != OUTSIDE})


def counts_by_type(gold: Sequence[Tags], prediction: Sequence[Tags], all_types: str) -> dict[str, Floats]:
    """True positives, predicted and gold entities of each sentence, (N, 3): of all types, and by type."""
    blocks: dict[str, Floats] = defaultdict(lambda: np.zeros((len(gold), 3)))  # zeros for a type not in the table
    together = blocks[all_types]
    for i, (tags, other_tags) in enumerate(zip(gold, prediction, strict=True)):
        expected, found = set(lenient_entities(tags)), set(lenient_entities(other_tags))
        for column, chosen in enumerate((expected & found, found, expected)):
            together[i, column] = len(chosen)
            for kind, _, _ in chosen:
                blocks[f"type/{kind}"][i, column] += 1
    return blocks


def scores_by_type(sums: Blocks) -> list[str]:
    """Names of the scores of the types that occur."""
    types = sorted(block.removeprefix("type/") for block in sums if block.startswith("type/") and sums[block].any())
    return [f"{part}/{kind}" for kind in types for part in (*PARTS, "support")]
