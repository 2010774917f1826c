"""All splits of an experiment: opened, or cut from the training data as shares, with as many rows as asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from research.common.errors import UserError
from research.config.schema import Config, DataConfig
from research.data.chosen_ids import with_ids
from research.data.labels import label_text
from research.data.sample import sampled
from research.data.shots import few_shot
from research.data.source import Split
from research.data.split import divided, shares_asked

# (config, name, file or expression, most rows) -> the split
Opener = Callable[[DataConfig, str, str, int | None], Split]


def splits_asked(config: Config, open_one: Opener, by_label: bool, only: str | None) -> dict[str, Split]:
    """The splits by name, or `only` one of them. `by_label`: shares and samples are stratified by the column label."""
    data, found = config.data, dict[str, Split]()
    if data.ids is not None and (data.max_train_examples or data.shots):
        other = "data.max_train_examples" if data.max_train_examples else "data.shots"
        raise UserError(f"data.ids and {other} both say what to train on; remove one.")
    shares = shares_asked(data)
    for name in ("train", "validation", "test"):
        value = getattr(data, name)
        divides = name == "train" and (only in shares or (shares and only in (None, "train")))
        draws = name == "train" and only == "validation" and data.shots is not None and data.validation is None
        if value and name not in shares and (only in (None, name) or divides or draws):
            limit = data.max_eval_examples if name != "train" else None if divides else _first_of_train(data)
            found[name] = open_one(data, name, value, limit)
        if divides:
            found |= divided(found["train"], data, labels_of(found["train"], by_label))
    for name in shares.keys() & found.keys():
        rows = found[name].rows
        limit = min(data.max_eval_examples or len(rows), len(rows))
        found[name] = replace(found[name], rows=rows.select(range(limit)))
    if "train" in found:
        if data.ids is not None:
            found["train"] = with_ids(found["train"], data.ids)
        found["train"] = _sampled(found["train"], data, by_label)
    if data.shots is not None and only in (None, "train", "validation"):
        labels = {name: labels_of(split, by_label) for name, split in found.items() if name != "test"}
        found |= few_shot(found, labels, data, config.task.name)
    order = [name for name in ("train", "validation", "test") if name in found and only in (None, name)]
    return {name: found[name] for name in order}


def evaluation_sample(splits: Mapping[str, Split], data: DataConfig, by_label: bool, size: int) -> Split:
    """The split `sample`: at most `size` rows of validation, the same in each evaluation of each run.

    Raises UserError where there is no validation data.
    """
    if "validation" not in splits:
        raise UserError(
            f"trainer.evaluate_examples={size}: there is no validation data to take a sample of; name a file, or a "
            "share of the training data by data.validation=0.1."
        )
    validation = splits["validation"]
    count = len(validation.rows)
    rows = sampled(count, labels_of(validation, by_label), size, data.split_seed)
    drawn = f"{validation.drawn}; sample of {len(rows)}, seed {data.split_seed}"
    return replace(validation, name="sample", rows=validation.rows.select(rows), drawn=drawn)


def _first_of_train(data: DataConfig) -> int | None:
    return data.max_train_examples if data.sample == "first" else None


def _sampled(train: Split, data: DataConfig, by_label: bool) -> Split:
    """Not more than `data.max_train_examples` rows of the training data."""
    count, size = len(train.rows), data.max_train_examples
    if size is None or size >= count:
        return train
    first = data.sample == "first"
    rows = range(size) if first else sampled(count, labels_of(train, by_label), size, data.split_seed)
    drawn = f"{train.drawn}; {data.sample} {size}, seed {data.split_seed}"
    return replace(train, rows=train.rows.select(rows), drawn=drawn)


def labels_of(split: Split, by_label: bool) -> list[str] | None:
    """The label of each example, where it has one."""
    if not by_label or "label" not in split.rows.column_names:
        return None
    return [label_text(label) for label in split.column("label").to_pylist()]
