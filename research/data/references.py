"""References of text tasks: one or several texts that each say what an output should."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from research.data.source import Split

log = logging.getLogger("research")


def texts_of(value: Any) -> list[str]:
    """The references of a cell: a text, a list of texts, or SQuAD's answers."""
    if isinstance(value, dict):
        value = value.get("text")
    return [value] if isinstance(value, str) else list(value or [])


def log_counts(split: Split, references: Sequence[Sequence[str]]) -> None:
    """Say where the rows of a split have not equally many references."""
    counts = {len(texts) for texts in references}
    if len(counts) > 1:
        log.warning(
            "%s: rows of %s have %d to %d references; each is scored by its own.",
            split.origin, split.name, min(counts), max(counts),
        )  # fmt: skip
