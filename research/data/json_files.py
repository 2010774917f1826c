"""Readers of JSON rows: an object a line, an array of objects, objects one after the other, rows under "data"."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from research.common.errors import UserError
from research.data.lines import BY_NAME, Reading, read_lines

_HEAD_CHARACTERS = 1 << 16
_PARAGRAPHS = re.compile(r'"paragraphs"\s*:')
_ROWS_UNDER_DATA = re.compile(r'"data"\s*:\s*\[\s*\{\s*"(?!title"|paragraphs")')
_SQUAD_KEY = re.compile(r'\{\s*"(data|version)"\s*:')

Row = dict[str, Any]
Rows = Iterator[tuple[int, Row]]


def read_jsonl(path: str, reading: Reading = BY_NAME) -> Rows:
    """One JSON object a line, blank lines skipped; or objects over several lines, one after the other.

    A row's place is the line its object begins in.
    """
    first = True
    for number, line in read_lines(path, reading.encoding):
        if not line.strip():
            continue
        try:
            value = _loads(line, f"{path}, line {number}")
        except json.JSONDecodeError as error:
            if first and error.pos >= len(line.rstrip()):  # the object continues in the next line
                yield from _concatenated(path, _text(path, reading))
                return
            raise UserError(
                f"{path}, line {number}, column {error.colno}: not JSON ({error.msg}); "
                "each line of a .jsonl file is one complete JSON object"
            ) from None
        first = False
        yield number, json_row(value, f"{path}, line {number}", line)


def read_json(path: str, reading: Reading = BY_NAME) -> Rows:
    """Rows of a `.json` file: an array of objects, {"data": [rows]}, or objects one after the other.

    A row's place is its number in the array, or the line its object begins in.
    """
    if shape_of(path, reading) == "objects":
        yield from _concatenated(path, _text(path, reading))
        return
    rows = load_json(path, reading)
    if isinstance(rows, dict):
        rows = rows.get("data")
    if not isinstance(rows, list):
        raise UserError(f"{path}: holds {kind_name(rows)}; a .json file is an array of objects or a SQuAD file")
    for number, value in enumerate(rows, 1):
        yield number, json_row(value, f"{path}, item {number}")


def shape_of(path: str, reading: Reading = BY_NAME) -> str:
    """What a JSON file's beginning shows: "squad", an "array" of rows (or {"data": rows}), or "objects"."""
    head = ""
    for _, line in read_lines(path, reading.encoding):
        head += line[:_HEAD_CHARACTERS]
        if len(head) >= _HEAD_CHARACTERS:
            break
    head = head.lstrip()
    if not head.startswith("{"):
        return "array"
    if _ROWS_UNDER_DATA.search(head) and not _PARAGRAPHS.search(head):
        return "array"
    return "squad" if _PARAGRAPHS.search(head) or _SQUAD_KEY.match(head) else "objects"


def load_json(path: str, reading: Reading = BY_NAME) -> Any:
    """The one value of a JSON file; an empty list for a file of blanks."""
    text = _text(path, reading)
    if not text.strip():
        return []
    try:
        return _loads(text, path)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg})") from None


def _text(path: str, reading: Reading) -> str:
    return "".join(line for _, line in read_lines(path, reading.encoding))


def _concatenated(path: str, text: str) -> Rows:
    """JSON objects one after the other, with blanks or commas between."""
    decoder, position, line = json.JSONDecoder(), 0, 1
    while True:
        start = position
        while start < len(text) and text[start] in " \t\r\n,":
            start += 1
        line += text.count("\n", position, start)
        if start == len(text):
            return
        where = f"{path}, line {line}"
        try:
            value, position = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg})") from None
        except (RecursionError, ValueError) as error:
            raise UserError(f"{where}: {_odd(error)}") from None
        yield line, json_row(value, where)
        line += text.count("\n", start, position)


def _loads(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError) as error:
        raise UserError(f"{where}: {_odd(error)}") from None


def _odd(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "the JSON is nested too deeply; give rows of plain columns"
    return "holds a number of thousands of digits; write it as a text, in quotes"


def json_row(value: Any, where: str, source: str | None = None) -> Row:
    """`value` if it is an object of complete characters; UserError if not."""
    if not isinstance(value, dict):
        raise UserError(f'{where}: holds {kind_name(value)}, not an object; write {{"column": value, ...}}')
    if source is None or "\\ud" in source.lower():  # json.loads lets half a surrogate pair pass, Arrow does not
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise UserError(f"{where}: holds half a surrogate pair (\\ud...); write the complete character") from None
    return value


def kind_name(value: Any) -> str:
    """A JSON value's kind in words."""
    names = {dict: "an object", list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
