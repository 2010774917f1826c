"""A hierarchy of labels as its file gives it: the parent of each label."""

from __future__ import annotations

from collections.abc import Mapping

from research.common.errors import UserError
from research.data.label_values import read_values

Parents = dict[str, str | None]  # label -> the label above it; None at the top


def read_hierarchy(file: str) -> Parents:
    """Each label's parent. Raises UserError for one that has no entry of its own, and for a cycle."""
    return checked(read_values(file, "task.hierarchy"), file)


def checked(parents: Parents, file: str) -> Parents:
    """The same. Raises UserError for a parent without an entry and for a cycle."""
    for label, parent in parents.items():
        if parent is not None and parent not in parents:
            raise UserError(
                f"{file}: '{parent}', the parent of '{label}', has no entry of its own; add it, without a parent if it "
                "is at the top."
            )
        seen = [label]
        while (above := parents[seen[-1]]) is not None:
            if above in seen:
                raise UserError(f"{file}: the hierarchy has a cycle: {' -> '.join([*seen, above])}.")
            seen.append(above)
    return parents


def path_to(label: str, parents: Mapping[str, str | None]) -> list[str]:
    """The labels from the top down to this one."""
    path = [label]
    while (above := parents[path[0]]) is not None:
        path.insert(0, above)
    return path
