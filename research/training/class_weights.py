"""Weights of classes in the training loss: named by the config, or those that balance the classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from research.batching.store import Store
from research.common.errors import UserError
from research.config.schema import OptimConfig


def class_weights(
    optim: OptimConfig, labels: Sequence[str], train: Store, class_column: str
) -> NDArray[np.float64] | None:
    """A weight for each label, or None: all alike. Raises UserError for an unknown label."""
    if not labels or not (optim.class_weights or optim.balance_classes):
        return None
    unknown = sorted(set(optim.class_weights) - set(labels))
    if unknown:
        raise UserError(f"optim.class_weights names {', '.join(unknown)}, but the labels are {', '.join(labels)}.")
    if optim.class_weights:
        return np.array([optim.class_weights.get(label, 1.0) for label in labels])
    counts = train.count(class_column, len(labels))
    balanced: NDArray[np.float64] = counts.sum() / (len(counts) * np.maximum(counts, 1))
    return balanced
