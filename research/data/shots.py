"""Few-shot samples: k examples of each class for training and k others of each for validation, as in LM-BFF.

Gao et al. 2021, Making Pre-trained Language Models Better Few-shot Learners. A sample belongs to its seed alone,
whatever the seed of the run, and is part of each larger one with that seed. Training takes each class from the
beginning of its shuffled order; validation, where it has no data of its own, from the end: no example is in both.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from research.common.errors import UserError
from research.config.schema import DataConfig
from research.data.sample import Indices
from research.data.source import Split


def few_shot(
    splits: Mapping[str, Split], labels: Mapping[str, Sequence[str] | None], data: DataConfig, task: str
) -> dict[str, Split]:
    """`data.shots` examples of each class of train and validation, the latter of train where it has no data of its own.

    `labels`: of each example of a split, None where it has no class. Raises UserError where there are none or too few.
    """
    shots, seed, few = int(data.shots or 0), data.shots_seed, {}
    if data.max_train_examples is not None:
        raise UserError("data.shots and data.max_train_examples both say how many to train on; remove one.")
    for name, mine in labels.items():
        split = splits[name]
        if mine is None:
            raise UserError(
                f"data.shots={shots}: task '{task}' has no class for each example to draw by; set "
                "data.max_train_examples instead."
            )
        classes = data.labels or sorted(set(mine))
        both = name == "train" and data.validation is None
        draws = {name: False, "validation": True} if both else {name: False}
        refuse_too_few(mine, classes, shots, len(draws), split.origin)
        for part, last in draws.items():
            rows = split.rows.select(shots_of(mine, classes, shots, seed, last))
            drawn = f"{split.drawn}; {shots} shots, seed {seed}, {'last' if last else 'first'}"
            few[part] = replace(split, name=part, rows=rows, drawn=drawn)
    return few


def shots_of(labels: Sequence[Hashable], classes: Sequence[Hashable], shots: int, seed: int, last: bool) -> Indices:
    """Ascending indices of `shots` examples of each class: the first of its shuffled order, or the last."""
    chosen: list[int] = []
    for order in _orders(labels, classes, seed).values():
        chosen += order[len(order) - shots :].tolist() if last else order[:shots].tolist()
    return np.sort(np.array(chosen, np.int64))


def refuse_too_few(labels: Sequence[Hashable], classes: Sequence[Hashable], shots: int, parts: int, where: str) -> None:
    """Raise UserError for a class with fewer than `shots` examples for each of the `parts` that take them."""
    for label in classes:
        count = sum(each == label for each in labels)
        if count < shots * parts:
            need = f"{shots} to train on and {shots} others to validate on" if parts == 2 else f"{shots}"
            raise UserError(
                f"data.shots={shots}: the class '{label}' has {count} examples in {where}, which must have {need}; "
                "take fewer shots."
            )


def _orders(labels: Sequence[Hashable], classes: Sequence[Hashable], seed: int) -> dict[Hashable, Indices]:
    """The shuffled indices of each class, which depend on the seed and on the examples of that class alone."""
    members: dict[Hashable, list[int]] = {label: [] for label in classes}
    for i, label in enumerate(labels):
        if label in members:  # else it is not declared, which is reported with its line
            members[label].append(i)
    orders = {}
    for label, mine in members.items():
        rng = np.random.default_rng([seed, *str(label).encode("utf-8", "surrogatepass"), 0x5407])
        orders[label] = rng.permutation(np.array(mine, np.int64))
    return orders
