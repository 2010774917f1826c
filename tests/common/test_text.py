"""Text helpers of messages."""

from __future__ import annotations

from research.common.text import counted


def test_a_count_of_one_has_no_plural() -> None:
    assert [counted(n, "row") for n in (0, 1, 2, 12000)] == ["0 rows", "1 row", "2 rows", "12,000 rows"]
