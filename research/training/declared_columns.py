"""A split as its task declares it: which columns it has, what they hold; and keys that the task does not take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from research.common.errors import UserError
from research.config.schema import DataConfig
from research.data.checks import refuse_other_than_text
from research.data.columns import set_aside
from research.data.opening import open_split
from research.data.source import Split

if TYPE_CHECKING:
    from research.training.datamodule import TaskData


def open_declared(task: TaskData, data: DataConfig, name: str, value: str, limit: int | None) -> Split:
    """Open a split; of new text, `input`, the gold answers may be missing or of any kind.

    Raises UserError for columns that are missing, of another kind, or that the task has no field for.
    """
    gold = task.gold if name == "input" else ()
    fields = {**task.fields, **({"id": "id"} if "id" in data.columns else {})}
    for field in data.columns:
        if field not in (*task.fields, "id"):
            raise UserError(
                f"data.columns: task '{task.config.task.name}' has no field '{field}'; "
                f"its fields are {', '.join(task.fields)} and id."
            )
    split = open_split(
        name=name,
        value=value,
        hub_name=data.name,
        hub_config=data.config,
        hub_revision=data.revision,
        fields={field: data.columns.get(field, usual) for field, usual in fields.items()},
        optional=(*task.optional, *gold),
        limit=limit,
        reading=task.reading(data),
        free=(*task.free, *gold),
        aligned=task.aligned,
    )
    if data.cluster and name in ("validation", "test") and data.cluster not in split.rows.column_names:
        held = ", ".join(column for column in split.rows.column_names if column != "__line__")
        raise UserError(f"data.cluster={data.cluster}: {split.origin} has no such column; its columns are {held}.")
    import datasets  # here: a service does not wait for it

    for field in {*gold} - {*task.free} & {*split.rows.column_names}:
        if isinstance(split.rows.features[field], datasets.Json):
            split = set_aside(split, field)
    for field in sorted({*task.texts, *task.text_lists} & set(split.rows.column_names)):
        if field not in gold:
            refuse_other_than_text(split, field, field in task.text_lists)
    return split


def refuse_keys_of_classes(task: TaskData) -> None:
    """Raise UserError for keys on classes where the task has none."""
    config, optim = task.config, task.config.optim
    keys = {"data.labels": config.data.labels, "data.label_descriptions": config.data.label_descriptions,
            "optim.class_weights": optim.class_weights, "optim.balance_classes": optim.balance_classes}  # fmt: skip
    named = [key for key, value in keys.items() if value]
    if named and task.class_column is None:
        raise UserError(f"task '{config.task.name}' has no classes for {' and '.join(named)}; remove the key.")


def refuse_way_with_long_texts(task: TaskData) -> None:
    """Raise UserError for a `data.long` that the task does not take."""
    asked = task.config.data.long
    if asked is not None and asked not in task.long:
        known = f"it takes {', '.join(task.long)}" if task.long else "it has a way of its own; remove the key"
        raise UserError(f"data.long={asked}: task '{task.config.task.name}' does not read long texts so; {known}.")
