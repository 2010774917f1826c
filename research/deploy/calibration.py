"""Inputs of a model that training data give, for quantisation with fixed scales."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

from torch import Tensor

from research.common.errors import UserError
from research.inference.predictor import Predictor, Trained

EXAMPLES = 128


def calibration_inputs(trained: Trained, data: Any) -> list[dict[str, Tensor]]:
    """What a model is given for each of the first training examples: padded inputs (1, L), or (windows, L).

    `data` is the experiment's own `data` section, which names the training file. Raises UserError where it is gone.
    """
    config = deepcopy(trained.config)
    config.data.train, config.data.validation, config.data.test = data.train, data.validation, data.test
    config.data.max_train_examples, config.data.shots, config.trainer.packing = EXAMPLES, None, False
    predictor = Predictor(replace(trained, config=config), "fp32")
    try:
        predictor.data.open(trained.learned, only="train")
    except UserError as error:
        raise UserError(f"int8_static reads training examples to fix its scales: {error}") from None
    rows = predictor.data.splits["train"].rows
    given: list[dict[str, Tensor]] = []

    def keep(module: Any, positional: Any, named: dict[str, Any]) -> None:
        given.append({name: value.clone() for name, value in named.items() if isinstance(value, Tensor)})

    handle = predictor.module.backbone.model.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        for row in rows.select(range(min(EXAMPLES, len(rows)))):
            fields = {field: row[field] for field in predictor.fields if row.get(field) is not None}
            predictor.outputs([predictor.question(fields)])
    finally:
        handle.remove()
    return given
