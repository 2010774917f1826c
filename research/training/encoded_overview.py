"""What the splits of a task hold, with the lengths of the encoded examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from research.data.overview import SplitOverview, overview_of

if TYPE_CHECKING:
    from research.training.datamodule import TaskData


def encoded_overview(data: TaskData) -> dict[str, SplitOverview]:
    """The overview of each split that is opened and encoded."""
    found = overview_of(data.splits, data.inputs, data.gold[0] if data.gold else None)
    for name, about in found.items():
        tokens = data.stores[name].tokens
        about.median_tokens, about.longest_tokens = int(np.median(tokens)), int(tokens.max())
        about.labels = about.labels if "label" in data.gold else {}  # other golds are no classes
        about.cut, about.windowed = data.cut.get(name, 0), data.several.get(name, 0)
    return found
