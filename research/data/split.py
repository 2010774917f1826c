"""Divide one file: shares for validation and test, or folds, by label and by group, the same for every run seed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from research.common.errors import UserError
from research.config.schema import DataConfig
from research.data.sample import Indices, stratified_order
from research.data.source import Split


def share_of(value: str | None) -> float | None:
    """0.1 for the text "0.1", what `data.validation: 0.1` says; None for a file, a split and nothing."""
    try:
        share = float(value or "")
    except ValueError:
        return None
    return share


def shares_asked(data: DataConfig) -> dict[str, float]:
    """The shares of the training file that validation and test take. Raises UserError for impossible ones."""
    named = {"validation": data.validation, "test": data.test}
    shares = {name: share for name, value in named.items() if (share := share_of(value)) is not None}
    wrong = [f"data.{name}={share:g}" for name, share in shares.items() if not 0 < share < 1]
    if wrong or sum(shares.values()) >= 1:
        raise UserError(
            f"{' and '.join(wrong or [f'data.{name}={share:g}' for name, share in shares.items()])} must be shares of "
            "data.train above 0 that leave some of it to train on"
        )
    if data.folds is not None:
        if data.test is not None:
            raise UserError(f"data.folds={data.folds} takes its test set from data.train; remove data.test")
        if data.fold is None or not 0 <= data.fold < data.folds:
            raise UserError(
                f"data.folds={data.folds} needs data.fold, the part to test on: 0 to {data.folds - 1}, or "
                "`research train EXPERIMENT data.fold=all` for one run after the other"
            )
        shares["test"] = 1 / data.folds
        if sum(shares.values()) >= 1:
            raise UserError(f"data.folds={data.folds} and data.validation={data.validation} leave nothing to train on")
    elif data.fold is not None:
        raise UserError(f"data.fold={data.fold} needs data.folds, the number of parts")
    if data.group is not None and not shares:
        raise UserError("data.group keeps the parts of a file apart; it needs a share in data.validation or data.test")
    return shares


def divided(train: Split, data: DataConfig, labels: Sequence[Hashable] | None) -> dict[str, Split]:
    """The training split without the shares, and each share as a split of its own; ids stay those of the file.

    Rows keep their order. Raises UserError for a `data.group` that is no column and for a part without rows.
    """
    shares, groups = shares_asked(data), _groups(train, data.group)
    first = data.fold / data.folds if data.folds and data.fold is not None else 0.0
    indices = parts(len(train.rows), shares, labels, groups, data.split_seed, first)
    found = {}
    for name, rows in indices.items():
        if len(rows) == 0:
            count = f"{len(set(groups))} groups" if groups else f"{len(train.rows)} {train.place}s"
            raise UserError(f"{train.origin}: the {name} part of its {count} has no {train.place}; give larger shares")
        drawn = f"{name} of {sorted(shares.items())} from {first}, seed {data.split_seed}, group {data.group}"
        found[name] = dataclasses.replace(train, name=name, rows=train.rows.select(rows), drawn=drawn)
    return found


def parts(
    count: int,
    shares: Mapping[str, float],
    labels: Sequence[Hashable] | None,
    groups: Sequence[Hashable] | None,
    seed: int,
    first: float = 0.0,
) -> dict[str, Indices]:
    """Ascending indices of `train` and each of `shares`; of a group all lie in one part.

    The test share lies from `first` on in the seeded order, the validation share behind it, so that the test set
    does not depend on how much is validated on, and the folds cover all once.
    """
    units: list[Hashable] = list(range(count)) if groups is None else list(dict.fromkeys(groups))
    members: dict[Hashable, list[int]] = {unit: [] for unit in units}
    for i, unit in enumerate(units if groups is None else groups):
        members[unit].append(i)
    unit_labels = labels
    if labels is not None and groups is not None:
        unit_labels = [Counter(labels[i] for i in members[unit]).most_common(1)[0][0] for unit in units]
    order = stratified_order(len(units), unit_labels, seed)
    sizes = np.array([len(members[units[i]]) for i in order])
    middle = (np.cumsum(sizes) - sizes / 2) / count  # where a unit lies in the order, in [0, 1]
    place = (middle - first) % 1.0
    chosen = np.full(len(units), "train", dtype=object)
    end = 0.0
    for name in ("test", "validation"):
        if name in shares:
            chosen[(place >= end) & (place < end + shares[name])] = name
            end += shares[name]
    found: dict[str, list[int]] = {name: [] for name in ("train", *shares)}
    for unit, name in zip(order, chosen, strict=True):
        found[name] += members[units[unit]]
    return {name: np.sort(np.array(rows, np.int64)) for name, rows in found.items()}


def _groups(split: Split, column: str | None) -> list[Hashable] | None:
    if column is None:
        return None
    if column not in split.rows.column_names:
        known = ", ".join(name for name in split.rows.column_names if name != "__line__")
        raise UserError(f"{split.origin}: no column '{column}' for data.group; the columns are {known}")
    return [str(value) for value in split.column(column).to_pylist()]
