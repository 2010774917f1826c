"""What a predictions table says of each example, in the same form for every metric.

Legend: N examples.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NOTHING = "(none)"
# A character of a script without spaces is a word, so is a run of others.
_WORD = re.compile(r"[぀-ヿ㐀-鿿豈-﫿]|[^\s぀-ヿ㐀-鿿豈-﫿]+")


@dataclass(frozen=True)
class Examples:
    """The examples of one run and split."""

    ids: list[str]
    score: Floats  # (N,) each example's own, 0 to 1
    confidence: Floats  # (N,) in the prediction; where it is wrong, in what is wrong of it; NaN where not known
    belief: Floats  # (N,) probability of the gold answer; its score where the task gives no probability
    text: list[str]
    gold: list[str]
    prediction: list[str]
    has_labels: bool = False  # gold and prediction are one label each

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,)"""
        return np.equal(self.score, 1)


def words(text: str) -> int:
    """How many words a text has; in Chinese and Japanese each character counts as one."""
    return len(_WORD.findall(text))


def joined(table: pa.Table, names: Sequence[str]) -> list[str]:
    """The text columns that there are, side by side, the items of a list between slashes."""
    columns = [table.column(name).to_pylist() for name in names if name in table.column_names]
    parts = zip(*columns, strict=True) if columns else ([] for _ in range(table.num_rows))
    return [" ‖ ".join(" / ".join(x) if isinstance(x, list) else str(x) for x in row if x) for row in parts]
