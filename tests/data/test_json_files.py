"""JSON rows in every shape they are published in."""

import pytest

from research.data.formats import format_of
from research.data.json_files import read_json, read_jsonl
from tests.data.opening import WriteFile, refuses


def test_jsonl_numbers_lines_and_keeps_values(file: WriteFile) -> None:
    path = file("a.jsonl", '\ufeff{"text": "2020-01-01", "n": 1}\r\n\r\n{"text": "a\u2028b", "n": null}')
    assert list(read_jsonl(path)) == [
        (1, {"text": "2020-01-01", "n": 1}),
        (3, {"text": "a\u2028b", "n": None}),
    ]


def test_jsonl_names_line_and_column(file: WriteFile) -> None:
    path = file("a.jsonl", '{"text": "a"}\n{"text": "b",}\n')
    refuses(read_jsonl, path, "line 2, column 14", "not JSON", "one complete JSON object")


@pytest.mark.parametrize("line, kind", [("[1]", "an array"), ('"a"', "a text"), ("3", "a number"), ("null", "null")])
def test_jsonl_line_that_is_not_an_object(file: WriteFile, line: str, kind: str) -> None:
    refuses(read_jsonl, file("a.jsonl", '{"text": "a"}\n' + line), "line 2", kind, "not an object")


def test_half_a_surrogate_pair(file: WriteFile) -> None:
    assert next(read_jsonl(file("ok.jsonl", '{"text": "\\ud83d\\ude00"}'))) == (1, {"text": "😀"})
    refuses(read_jsonl, file("a.jsonl", '{"text": "\\ud83d"}'), "line 1", "surrogate")
    refuses(read_json, file("a.json", '[{"text": "\\ud83d"}]'), "item 1", "surrogate")


def test_json_array(file: WriteFile) -> None:
    path = file("a.json", '[{"text": "a"},\n {"text": "b"}]')
    assert format_of(path).name == "json"
    assert list(read_json(path)) == [(1, {"text": "a"}), (2, {"text": "b"})]
    refuses(read_json, file("b.json", '[{"text": "a"}, 3]'), "item 2", "a number")
    refuses(read_json, file("c.json", '[{"text": "a"},\n {"text": }]'), "line 2, column 11")


def test_json_lines_named_json(file: WriteFile) -> None:
    path = file("a.json", '{"text": "a"}\n{"text": "b"}\n')
    assert (format_of(path).name, format_of(path).place) == ("json", "line")
    assert list(read_json(path)) == [(1, {"text": "a"}), (2, {"text": "b"})]


def test_objects_over_several_lines(file: WriteFile) -> None:
    content = '{\n  "text": "a {",\n  "n": [1,\n 2]\n}\n\n{\n "text": "b"\n} {"text": "c"}'
    rows = [(1, {"text": "a {", "n": [1, 2]}), (7, {"text": "b"}), (9, {"text": "c"})]
    assert list(read_json(file("a.json", content))) == list(read_jsonl(file("a.jsonl", content))) == rows
    refuses(read_json, file("b.json", '{"text": "a"}\n{"text": }'), "line 2, column 10", "not JSON")
    refuses(read_jsonl, file("b.jsonl", '{"text": "a"}\n{"text":\n"b"}\n'), "line 2", "one complete JSON object")
    refuses(read_json, file("c.json", '{"text": "a"}\n3'), "line 2", "a number, not an object")


def test_rows_under_data(file: WriteFile) -> None:
    path = file("a.json", '{"version": "1", "data": [{"id": "q", "question": "?"}]}')
    assert (format_of(path).name, format_of(path).place) == ("json", "item")
    assert list(read_json(path)) == [(1, {"id": "q", "question": "?"})]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_values_no_reader_can_hold(file: WriteFile, name: str) -> None:
    read = format_of(file(name, "")).read
    refuses(read, file(name, '{"text": ' + "[" * 100_000 + "]" * 100_000 + "}"), "line 1", "nested too deeply")
    refuses(read, file(name, '{"text": ' + "9" * 5_000 + "}"), "line 1", "thousands of digits")
