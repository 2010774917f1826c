"""Readers of local text files: each yields (place, row), the place a 1-based line, item or question number.

Every reader streams where the format allows it, keeps values as they stand in the file (no text becomes
a number, a date or a null), takes UTF-8 with or without a byte order mark and any newlines, and raises
UserError naming the file and the line.
"""

import codecs
import csv
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research.common.errors import UserError

log = logging.getLogger(__name__)

Row = dict[str, Any]
Rows = Iterator[tuple[int, Row]]


@dataclass(frozen=True)
class Format:
    """What one kind of file is read with, and what its places count."""

    name: str
    place: str  # "line", "item" (of a JSON array) or "question" (of a SQuAD file)
    read: Callable[[str], Rows]


def format_of(path: str) -> Format:
    """The format of a text file, by its suffix; a `.json` file by its first character."""
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        is_object = next((line.lstrip()[0] for _, line in read_lines(path) if line.strip()), "") == "{"
        return Format("squad", "question", read_squad) if is_object else Format("json", "item", read_json)
    if suffix == ".jsonl":
        return Format("jsonl", "line", read_jsonl)
    if suffix in (".csv", ".tsv"):
        return Format(suffix[1:], "line", read_csv)
    return Format("conll", "line", read_conll)


def read_lines(path: str) -> Iterator[tuple[int, str]]:
    """(1-based number, line with its newline); lines end at a newline byte only."""
    with open(path, "rb") as file:
        for number, raw in enumerate(file, 1):
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            try:
                yield number, raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}, line {number}: byte {error.start + 1} (0x{raw[error.start]:02x}) "
                    "is not UTF-8; save the file as UTF-8, for example with `iconv -f LATIN1 -t UTF-8`"
                ) from None


# --- JSON ---------------------------------------------------------------------------------------------


def read_jsonl(path: str) -> Rows:
    """One JSON object a line; blank lines are skipped."""
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}, line {number}, column {error.colno}: not JSON ({error.msg}); "
                "each line of a .jsonl file is one whole JSON object"
            ) from None
        yield number, _json_row(value, f"{path}, line {number}", line)


def read_json(path: str) -> Rows:
    """A JSON array of objects."""
    rows = _load_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path}: holds {kind_name(rows)}; a .json file is an array of objects or a SQuAD file")
    for number, value in enumerate(rows, 1):
        yield number, _json_row(value, f"{path}, item {number}")


def _load_json(path: str) -> Any:
    text = "".join(line for _, line in read_lines(path))
    if not text.strip():
        return []
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        is_jsonl = error.msg == "Extra data"
        remedy = "one JSON object a line is a .jsonl file: rename it" if is_jsonl else "mend the JSON there"
        raise UserError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}); {remedy}"
        ) from None


def _json_row(value: Any, where: str, source: str | None = None) -> Row:
    if not isinstance(value, dict):
        raise UserError(f'{where}: holds {kind_name(value)}, not an object; write {{"column": value, ...}}')
    if source is None or "\\ud" in source.lower():  # json.loads lets half a surrogate pair pass, Arrow does not
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise UserError(f"{where}: holds half a surrogate pair (\\ud...); write the whole character") from None
    return value


def kind_name(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


# --- CSV and TSV --------------------------------------------------------------------------------------


def read_csv(path: str) -> Rows:
    """Rows of text under a header row, by commas (.csv) or TABs (.tsv); a row's place is its first line."""
    csv.field_size_limit(sys.maxsize)  # the module's default refuses a text of 128 KiB
    delimiter = "\t" if Path(path).suffix.lower() == ".tsv" else ","
    reader = csv.reader((line for _, line in read_lines(path)), delimiter=delimiter, strict=True)
    header: list[str] = []
    number = 1
    try:
        for cells in reader:
            if not cells:
                pass  # a blank line
            elif not header:
                header = _csv_header(cells, path, number)
            elif len(cells) != len(header):
                raise UserError(
                    f"{path}, line {number}: {len(cells)} cells where the header has {len(header)}; "
                    f"put a text that holds {'a TAB' if delimiter == chr(9) else 'a comma'} in double quotes"
                )
            else:
                yield number, dict(zip(header, cells, strict=True))
            number = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}, line {number}: bad quoting ({error}); put a text that holds a double quote "
            'in double quotes and double those within: "the ""best"" film"'
        ) from None


def _csv_header(cells: list[str], path: str, number: int) -> list[str]:
    twice = next((name for name in cells if cells.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}, line {number}: the header names the column '{twice}' twice; rename one")
    return cells


# --- CoNLL columns ------------------------------------------------------------------------------------


def read_conll(path: str) -> Rows:
    """Sentences as {"tokens": [...], "tags": [...]}: first and last column, a blank line between sentences.

    Columns are separated by TAB, or by blanks in a line without TAB, and every line has as many.
    `-DOCSTART-` lines are skipped. A file of one column has no tags: its rows are {"tokens": [...]}.
    """
    width = 0
    start, tokens, tags = 0, list[str](), list[str]()
    for number, line in read_lines(path):
        columns = _conll_columns(line)
        if not columns or columns[0].startswith("-DOCSTART-"):
            if tokens:
                yield start, _conll_row(tokens, tags, width)
            tokens, tags = [], []
            continue
        width = width or len(columns)
        if len(columns) != width or not columns[0] or not columns[-1]:
            raise UserError(_conll_fault(f"{path}, line {number}", columns, width))
        start = start if tokens else number
        tokens.append(columns[0])
        tags.append(columns[-1])
    if tokens:
        yield start, _conll_row(tokens, tags, width)


def _conll_row(tokens: list[str], tags: list[str], width: int) -> Row:
    return {"tokens": tokens, "tags": tags} if width > 1 else {"tokens": tokens}


def _conll_columns(line: str) -> list[str]:
    # not str.split(): tokens such as U+3000 and U+00A0 are blanks to Python
    line = line.rstrip("\r\n\t ")
    return [cell.strip(" ") for cell in line.split("\t")] if "\t" in line else [c for c in line.split(" ") if c]


def _conll_fault(where: str, columns: list[str], width: int) -> str:
    if not columns[0]:
        return f"{where}: the token is missing; write token, separator, tag"
    if len(columns) == 1 or not columns[-1]:
        return f"{where}: '{columns[0]}' has no tag; write token, separator, tag (O outside an entity)"
    return (
        f"{where}: {len(columns)} columns where the lines above have {width}; "
        "separate the columns by TAB if a token holds blanks"
    )


# --- SQuAD --------------------------------------------------------------------------------------------


def read_squad(path: str) -> Rows:
    """Questions of a SQuAD v1.1 or v2.0 file (Rajpurkar et al., 2016, 2018), numbered from 1.

    Rows hold id, title, context, question, answers {"text": [...], "answer_start": [...]} and
    is_impossible. An `answer_start` (in characters) that points at another text is moved to the nearest
    occurrence of the answer; how many were moved is logged once. An answer that the context does not hold
    raises UserError.
    """
    moved = 0
    questions = _squad_questions(path, _load_json(path))
    for number, (article, paragraph, question, where) in enumerate(questions, 1):
        context = _get(paragraph, "context", str, where)
        row_id = _get(question, "id", (str, int), where)
        answers: dict[str, list[Any]] = {"text": [], "answer_start": []}
        for answer in _get(question, "answers", list, where, default=[]):
            place = f"{path}, question {row_id}"
            text = _get(answer, "text", str, place)
            given = _get(answer, "answer_start", int, place)
            start = nearest_start(context, text, given, place)
            moved += start != given
            answers["text"].append(text)
            answers["answer_start"].append(start)
        yield (
            number,
            {
                "id": str(row_id),
                "title": _get(article, "title", str, where, default=""),
                "context": context,
                "question": _get(question, "question", str, where),
                "answers": answers,
                "is_impossible": _get(question, "is_impossible", bool, where, default=False),
            },
        )
    if moved:
        log.warning("%s: moved %d answer_start to the nearest occurrence of the answer's text", path, moved)


def _squad_questions(path: str, document: Any) -> Iterator[tuple[Row, Row, Row, str]]:
    """(article, paragraph, question, where) of every question in file order."""
    for i, article in enumerate(_get(document, "data", list, path)):
        at_article = f"{path}, data[{i}]"
        for j, paragraph in enumerate(_get(article, "paragraphs", list, at_article)):
            at_paragraph = f"{at_article}.paragraphs[{j}]"
            for k, question in enumerate(_get(paragraph, "qas", list, at_paragraph)):
                yield article, paragraph, question, f"{at_paragraph}.qas[{k}]"


def _get(parent: Any, key: str, kind: type | tuple[type, ...], where: str, default: Any = None) -> Any:
    value = parent.get(key, default) if isinstance(parent, Mapping) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{where}: '{key}' is missing or not as in a SQuAD file ({value!r:.40}); mend it there")
    return value


def nearest_start(context: str, text: str, start: int, where: str) -> int:
    """`start` if `text` stands there, else where it stands nearest to it (the earlier one of two).

    Raises UserError where it stands nowhere.
    """
    if start >= 0 and context.startswith(text, start):
        return start
    before, after = context.rfind(text, 0, max(start, 0) + len(text)), context.find(text, max(start, 0))
    found = [place for place in (before, after) if place >= 0]
    if not found:
        there = context[max(start, 0) : max(start, 0) + len(text)]
        raise UserError(
            f"{where}: the answer '{text:.60}' does not stand at answer_start {start} "
            f"(there stands '{there:.60}') nor elsewhere in the context; mend the answer or its context"
        )
    return min(found, key=lambda place: abs(place - start))


SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".conll", ".bio", ".iob", ".iob2", ".txt")


def has_known_suffix(path: str) -> bool:
    """Whether the name of the file says how to read it."""
    return os.path.splitext(path)[1].lower() in SUFFIXES
