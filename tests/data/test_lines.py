"""Encodings and line ends."""

from typing import Any

import pytest

from research.data.conll import read_conll
from research.data.csv_files import read_csv
from research.data.json_files import read_jsonl
from research.data.lines import BY_NAME, Reading, likely_encoding, read_lines
from tests.data.opening import WriteFile, refuses


def lines(path: str, reading: Any = BY_NAME) -> Any:
    return read_lines(path, reading.encoding)


def test_text_that_is_not_utf8_names_line_and_codec(file: WriteFile) -> None:
    path = file("a.txt", "gut\n“caf\xe9” – ja\n".encode("cp1252"))
    refuses(lines, path, "line 2", "byte 1 (0x93) is not UTF-8", "(this line: “café” – ja)", "`data.encoding: cp1252`")
    assert [line for _, line in read_lines(path, "cp1252")] == ["gut\n", "“café” – ja\n"]


def test_one_damaged_line_of_a_utf8_file(file: WriteFile) -> None:
    path = file("a.txt", "süß\nfür\n".encode() + b"gr\xfc\xdfe\n" + "größer\n".encode())
    refuses(lines, path, "line 3", "byte 3 (0xfc)", "UTF-8 elsewhere: correct this line")


@pytest.mark.parametrize(
    "text, encoding",
    [
        ("naïve – café “good” € 5\n", "cp1252"),
        ("Der Bär heißt Jürgen\n", "cp1252"),
        ("это хороший фильм\nплохая книга\n", "cp1251"),
        ("这部电影很好看。\n质量不错，推荐购买\n", "gb18030"),
    ],
)
def test_the_codec_that_fits_is_named(text: str, encoding: str) -> None:
    assert likely_encoding(text.encode(encoding)) == encoding


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_tells_the_encoding(file: WriteFile, encoding: str) -> None:
    path = file("a.csv", "text,label\ncafé,pos\n".encode(encoding))
    assert list(read_csv(path)) == [(2, {"text": "café", "label": "pos"})]


def test_utf16_without_its_mark(file: WriteFile) -> None:
    path = file("a.csv", "text,label\ngood,pos\n".encode("utf-16-le"))
    refuses(read_csv, path, "UTF-16 without a byte order mark", "`data.encoding: utf-16-le`")
    assert list(read_csv(path, Reading(encoding="utf-16-le"))) == [(2, {"text": "good", "label": "pos"})]


def test_an_encoding_that_does_not_fit(file: WriteFile) -> None:
    refuses(lines, file("a.txt", b"a\nb\n\xff\n"), "is not utf-16", "data.encoding", encoding="utf-16")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_lines_that_end_in_a_carriage_return_alone(file: WriteFile, encoding: str) -> None:
    reading = Reading(encoding=encoding)
    path = file("a.csv", "text,label\rgood,pos\rbad,neg\r".encode(encoding))
    assert [row["text"] for _, row in read_csv(path, reading)] == ["good", "bad"]
    path = file("a.jsonl", '{"text": "good"}\r{"text": "bad"}\r'.encode(encoding))
    assert list(read_jsonl(path, reading)) == [(1, {"text": "good"}), (2, {"text": "bad"})]
    path = file("a.conll", "Anna\tB-PER\rwas\tO\r\rOslo\tB-LOC\r".encode(encoding))
    assert [(n, row["tokens"]) for n, row in read_conll(path, reading)] == [(1, ["Anna", "was"]), (4, ["Oslo"])]


def test_a_carriage_return_within_a_text_stays(file: WriteFile) -> None:
    assert list(read_csv(file("a.csv", 'text,label\n"a\rb",x\n'))) == [(2, {"text": "a\rb", "label": "x"})]
    assert list(read_lines(file("a.txt", "a\rb\nc\r\n"))) == [(1, "a\rb\n"), (2, "c\r\n")]
