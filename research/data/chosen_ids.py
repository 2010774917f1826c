"""Training on chosen examples alone: those whose ids a file lists."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from research.common.errors import UserError
from research.common.files import write_atomically
from research.data.source import Split


def with_ids(train: Split, file: str) -> Split:
    """The rows of the training data whose ids the file lists, in the data's order.

    Raises UserError for an id that is not in the training data, or that is listed twice.
    """
    listed = read_ids(file)
    place = {example: i for i, example in enumerate(train.rows["id"])}
    for example in listed:
        if example not in place:
            near = difflib.get_close_matches(example, place, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise UserError(f"data.ids={file}: '{example}' is the id of no example of {train.origin}{hint}")
    digest = hashlib.sha256(json.dumps(sorted(listed)).encode()).hexdigest()
    rows = train.rows.select(sorted(place[example] for example in listed))
    return replace(train, rows=rows, drawn=f"{train.drawn}; {len(listed)} ids, sha256 {digest}")


def read_ids(file: str) -> list[str]:
    """A JSON list of ids, or those of `train` in a run's `splits.json`. Raises UserError for anything else."""
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"data.ids={file} cannot be read ({error}).") from None
    found = content.get("train") if isinstance(content, dict) else content
    if not isinstance(found, list) or not found or not all(isinstance(each, str) for each in found):
        raise UserError(
            f'data.ids={file} must hold a JSON list of ids, as in ["train-0", "train-7"], or be a run\'s splits.json.'
        )
    if len(set(found)) < len(found):
        raise UserError(f"data.ids={file} lists the id '{next(x for x in found if found.count(x) > 1)}' twice.")
    return found


def write_ids(ids: Sequence[str], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(list(ids)) + "\n", encoding="utf-8")
