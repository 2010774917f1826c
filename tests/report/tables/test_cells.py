"""Tables as they are shown and written."""

import csv
from pathlib import Path
from typing import Any

import pytest

from research.report.tables.cells import Cell, cell, file_name, make_table, table_markdown, write_table_csv


@pytest.mark.parametrize(
    ("value", "text", "number"),
    [
        (12345, "12,345", 12345.0),
        (0.91237, "0.9124", 0.91237),
        ("a", "a", None),
        (None, "", None),
        (float("nan"), "", None),
        (True, "True", None),
    ],
)
def test_values_are_shown_rounded_and_kept_exact(value: Any, text: str, number: float) -> None:
    assert (cell(value).text, cell(value).value) == (text, number)


def test_a_column_of_numbers_may_begin_without_one() -> None:
    assert make_table("T", ("a", "b"), [["x", Cell("–")], ["y", 0.5]]).numbers == [False, True]


def test_markdown_escapes_what_would_break_the_table() -> None:
    shown = make_table("T", ("name", "n"), [["<b>a|b</b>\nc", 3]])
    assert table_markdown(shown) == "| name | n |\n| --- | --- |\n| &lt;b&gt;a\\|b&lt;/b&gt; c | 3 |\n"


def test_csv_has_the_numbers_in_full(tmp_path: Path) -> None:
    write_table_csv(make_table("T", ("text", "share", "count"), [["a,b\n“中文”", 1 / 3, 12345]]), tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[1] == ["a,b\n“中文”", repr(1 / 3), "12345"]


def test_cells_pass_through() -> None:
    best = Cell("0.9", 0.9, (), "best")
    assert cell(best) is best


@pytest.mark.parametrize(
    ("title", "name"), [("Slices of glue/sst2", "slices-of-glue-sst2"), ("新闻 ner", "新闻-ner"), ("../..", "table")]
)
def test_file_names_have_no_separators(title: str, name: str) -> None:
    assert file_name(title) == name


def test_control_characters_and_direction_marks_are_dropped() -> None:
    shown = make_table("A\x1b[31m table", ("a\u202eb",), [["x\x07y\tz [/x]\n"]], "c\x00")
    assert (shown.title, shown.columns[0], shown.rows[0][0].text) == ("A[31m table", "ab", "xy\tz [/x]\n")
    assert shown.caption == "c"
