"""The class of an example, for methods that compare or mix whole texts by it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from research.batching.store import INPUT
from research.common.errors import UserError
from research.methods.hooks import Trained


def refuse_other_than_one_class(method: str, module: Trained, windows: bool) -> None:
    """Raise UserError for a task whose examples are not of one class each, or, unless `windows`, of several windows."""
    data, task = module.data, module.config.task.name
    if data.class_column is None or data.class_column not in data.window_columns:
        raise UserError(
            f"methods.{method} does not go with task '{task}': it needs one class for each example, as in "
            "classification and relation."
        )
    if not windows and bool((data.stores["train"].streams[INPUT].windows.lengths() > 1).any()):
        raise UserError(f"methods.{method} reads a text in one window; set data.long to truncate or head_tail.")


def class_of(module: Trained, examples: NDArray[np.int64]) -> Tensor:
    """The class of each of these training examples, (E,)."""
    labels = module.data.stores["train"].columns[module.data.class_column].rows(examples)
    return torch.tensor([int(row[0]) for row in labels])
