"""Open a split of a data set: from a local file or the hub, with the fields that a task reads, checked."""

import dataclasses
import hashlib
import os
from collections.abc import Collection, Mapping, Sequence

from research.common import compat
from research.common.errors import UserError
from research.data.checks import check_aligned, check_ids, check_values
from research.data.columns import has_column, with_fields
from research.data.formats import BY_NAME, Reading, has_known_suffix
from research.data.source import Split, open_file, slice_rows, sliced


def open_split(
    *,
    name: str,
    value: str,
    hub_name: str | None,
    hub_config: str | None,
    hub_revision: str | None,
    fields: Mapping[str, str],
    optional: Collection[str] = (),
    limit: int | None = None,
    reading: Reading = BY_NAME,
    free: Collection[str] = (),
    aligned: Sequence[str] = (),
) -> Split:
    """Open `value`: a local file, or a split expression (`train[:90%]`) of the data set `hub_name`.

    `fields` maps each field the task needs to its column in the data; those in `optional` may be absent
    or hold nulls, those in `free` hold values of any shape, those in `aligned` lists of equal lengths.
    `hub_name` may be a local folder in the hub's format.
    A file may be sliced like a split of the hub: `train.csv[:80%]`. The first `limit` rows are taken.
    Raises UserError saying what is wrong, where, and how to correct it.
    """
    file, rows_asked = sliced(value)
    if hub_name is None or has_known_suffix(file) or os.path.isfile(file):
        split = open_file(name, file, reading)
        if rows_asked:
            split = slice_rows(split, rows_asked)
    else:
        from research.data.hub import load_hub

        rows = load_hub(hub_name, hub_config, value, hub_revision)
        key = "\n".join(map(str, (hub_name, hub_config, hub_revision, value, compat.dataset_fingerprint(rows))))
        sha256 = hashlib.sha256(key.encode()).hexdigest()
        split = Split(name=name, rows=rows, origin=f"{hub_name} ({value})", lines=False, fingerprint=sha256)
    if len(split.rows) == 0:
        raise UserError(f"{split.origin}: holds no {split.place}s; give at least one")
    if limit is not None:
        split = dataclasses.replace(split, rows=split.rows.select(range(min(limit, len(split.rows)))))
    if split.format == "conll":  # its reader has chosen the columns
        fields = {field: field if field in split.rows.column_names else column for field, column in fields.items()}
    fields = {field: column for field, column in fields.items() if has_column(split, field, column, optional)}
    split = with_fields(split, fields)
    for field in fields:
        check_values(split, field, field in optional, field in free)
    if name != "input":  # nothing is paired by the ids of new text
        check_ids(split)
    if aligned and set(aligned) <= set(fields) and name != "input":
        check_aligned(split, aligned)
    return split
