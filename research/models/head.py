"""Fit the rows of a head that was trained before to the labels of this run: by name, never by position.

Shapes: C labels, H width of the head's input.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

log = logging.getLogger(__name__)

_NAMELESS = re.compile(r"LABEL_(\d+)")
_MOST_NAMED = 8


def fit_head(model: PreTrainedModel, name: str, trained_for: Mapping[int, str], new: Collection[str]) -> None:
    """Give each output the row of its label in the head of `name`, which was trained for `trained_for`.

    `new`: parameters that were not loaded. Where the label names differ, the rows are initialised and this is
    logged. A head of one output, or for labels without names on our side, such as a span's start and end, stays.
    """
    names: Any = model.config.id2label
    labels = [names[i] for i in sorted(names)]
    rows = head_rows(model)
    before = [trained_for[i] for i in sorted(trained_for)]
    is_trained = rows and not any(parameter in new for parameter in rows)
    if len(labels) < 2 or all(map(_NAMELESS.fullmatch, labels)) or not rows:
        return
    if not is_trained:
        if set(rows) & set(new) and len(before) != len(labels) and not all(map(_NAMELESS.fullmatch, before)):
            log.warning("%s", _new_head(name, before, labels))
        return
    if before == labels or [_number(label) for label in before] == labels:
        return
    if sorted(before) == sorted(labels):
        order = torch.tensor([before.index(label) for label in labels])
        for parameter in rows.values():
            parameter.data = parameter.data[order]
        log.warning("The head of %s has its labels in another order: its rows are taken by their names.", name)
        return
    log.warning("%s", _new_head(name, before, labels))
    for parameter in rows.values():  # (C, H) or (C,)
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter.data, std=getattr(model.config, "initializer_range", 0.02))
        else:
            torch.nn.init.zeros_(parameter.data)


def head_rows(model: PreTrainedModel) -> dict[str, Tensor]:
    """The head's parameters that hold a row for each label: (C, H) weights and (C,) biases."""
    base = f"{model.base_model_prefix}."
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if not name.startswith(base) and parameter.shape[0] == model.config.num_labels
    }


def with_outputs(model: PreTrainedModel, state: Mapping[str, Tensor], outputs: slice) -> dict[str, Tensor]:
    """A state of the model whose head has these outputs alone."""
    rows = head_rows(model)
    return {name: tensor[outputs].contiguous() if name in rows else tensor for name, tensor in state.items()}


@contextmanager
def named_outputs(model: PreTrainedModel, labels: Sequence[str]) -> Iterator[None]:
    """The model's config says that its head's outputs are these; without labels, what they are."""
    own: Any = model.config
    if labels:
        model.config = deepcopy(own)
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: i for i, label in enumerate(labels)}
    try:
        yield
    finally:
        model.config = own


def _number(label: str) -> str:
    """ "1" for LABEL_1, the name of a label that has none."""
    nameless = _NAMELESS.fullmatch(label)
    return nameless[1] if nameless else label


def _new_head(name: str, before: Sequence[str], labels: Sequence[str]) -> str:
    old, now = (
        ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "") for names in (before, labels)
    )
    return f"The head of {name} was trained for the labels {old}; here they are {now}: a new head is initialised."
