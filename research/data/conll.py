"""Reader of CoNLL files: a word a line in columns, a blank line between sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from research.common.errors import UserError
from research.data.lines import BY_NAME, Reading, read_lines

Word = tuple[int, list[str]]  # line number, columns
CONLLU = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
_GLOBAL_COLUMNS = re.compile(r"#\s*global\.columns\s*=\s*(.*)")
_TAG = re.compile(r"O|[BIESLUM]-.+")
_NOT_A_WORD = re.compile(r"\d+[-.]\d+")  # of CoNLL-U: a span of words, an empty node


@dataclass(frozen=True)
class Layout:
    """The columns of a file, from 0: how many, which holds the words and which, if any, the tags."""

    width: int
    tabs: bool  # the columns are separated by TAB
    token: int
    tag: int | None
    numbered: bool  # the first column numbers the words of a sentence


def read_conll(path: str, reading: Reading = BY_NAME) -> Iterator[tuple[int, dict[str, list[str]]]]:
    """Sentences as {"tokens": [...], "tags": [...]}, their place the first word's line; a single column has no tags.

    The words are in the first column and the tags in the last; where the first column numbers the words, in the
    second and in the one that holds tags. `reading.tokens` and `reading.tags` choose others, by number from 1 or by
    name (of a `# global.columns` line, or CoNLL-U's). Columns are separated by TAB, or by blanks in a line without
    TAB. `-DOCSTART-` lines are skipped, and so are comments: lines that begin with `# ` or `#` TAB before a
    sentence's first word.
    """
    layout = _layout(path, reading)
    for sentence in _sentences(path, reading, layout.width, layout.tabs):
        words = [word for word in sentence if not (layout.numbered and _NOT_A_WORD.fullmatch(word[1][0]))]
        for number, cells in words:
            if not cells[layout.token]:
                raise UserError(f"{path}, line {number}: the token is missing; write token, separator, tag")
            if layout.tag is not None and not cells[layout.tag]:
                raise UserError(_no_tag(f"{path}, line {number}", cells[layout.token]))
        if words:
            row = {"tokens": [cells[layout.token] for _, cells in words]}
            if layout.tag is not None:
                row["tags"] = [cells[layout.tag] for _, cells in words]
            yield words[0][0], row


def _columns(line: str) -> list[str]:
    # not str.split(): tokens such as U+3000 and U+00A0 are blanks to Python
    line = line.rstrip("\r\n\t ")
    return [cell.strip(" ") for cell in line.split("\t")] if "\t" in line else [c for c in line.split(" ") if c]


def _sentences(path: str, reading: Reading, width: int, tabs: bool) -> Iterator[list[Word]]:
    sentence: list[Word] = []
    for number, line in read_lines(path, reading.encoding):
        cells = _columns(line)
        if not cells or cells[0].startswith("-DOCSTART-"):
            if sentence:
                yield sentence
            sentence = []
        elif sentence or not _is_comment(line, cells, width, tabs):
            if len(cells) != width:
                raise UserError(_fault(f"{path}, line {number}", cells, width, reading))
            sentence.append((number, cells))
    if sentence:
        yield sentence


def _is_comment(line: str, cells: list[str], width: int, tabs: bool) -> bool:
    """A line that begins with `# ` or `#` TAB, unless it is the word `#` with its tag."""
    is_word = len(cells) == width and ("\t" in line) is tabs and _TAG.fullmatch(cells[-1])
    return line.startswith(("# ", "#\t")) and not is_word


def _layout(path: str, reading: Reading) -> Layout:
    width, tabs, names = _width_and_names(path, reading)
    counted = width > 1
    longest = 0
    tag_columns, entity_columns = set(range(width)), set[int]()
    for sentence in _sentences(path, reading, width, tabs):
        numbers = [cells[0] for _, cells in sentence if not _NOT_A_WORD.fullmatch(cells[0])]
        longest = max(longest, len(numbers))
        counted = counted and numbers in ([str(i + k) for i in range(len(numbers))] for k in (1, 0))
        for _, cells in sentence:
            tag_columns = {i for i in tag_columns if _TAG.fullmatch(cells[i])}
            entity_columns |= {i for i in tag_columns if cells[i] != "O"}
    numbered = counted and longest > 1 and not (width == 2 and 1 in tag_columns)
    token = _chosen(path, "tokens", reading.tokens, names, width)
    tag = _chosen(path, "tags", reading.tags, names, width)
    if token is None:
        token = 1 if numbered else 0
    if tag is None and reading.tags in (None, "tags"):
        tag = _tag_column(path, tag_columns - {token}, entity_columns - {token}) if numbered else width - 1
    return Layout(width, tabs, token, None if tag == token else tag, numbered)


def _tag_column(path: str, tagged: set[int], with_entities: set[int]) -> int | None:
    """The column of tags of a numbered file. UserError where several hold entities."""
    found = sorted(tagged & with_entities) or sorted(tagged)
    if len(found) > 1 and tagged & with_entities:
        numbers = " and ".join(str(i + 1) for i in found)
        raise UserError(f"{path}: columns {numbers} hold tags; choose one, as in `data.columns.tags: {found[0] + 1}`")
    return found[-1] if found else None


def _width_and_names(path: str, reading: Reading) -> tuple[int, bool, list[str]]:
    """The number of columns, whether TAB separates them, and their names where the file says them or is CoNLL-U."""
    names: list[str] = []
    first: tuple[int, bool] | None = None
    for _, line in read_lines(path, reading.encoding):
        cells = _columns(line)
        if said := _GLOBAL_COLUMNS.match(line):
            names = said[1].split()
        elif cells and not cells[0].startswith("-DOCSTART-"):
            if not line.startswith(("# ", "#\t")):
                return len(cells), "\t" in line, names or (list(CONLLU) if len(cells) == len(CONLLU) else [])
            first = first or (len(cells), "\t" in line)
    return *(first or (0, False)), names


def _chosen(path: str, field: str, column: str | None, names: list[str], width: int) -> int | None:
    """The index of a column chosen by number or name; None where none is chosen or the file ends before it."""
    if column is None or column == field or width < 2:
        return None
    if column in names:
        return names.index(column)
    if not column.isdecimal() or int(column) < 1:
        known = f"its columns are {', '.join(names)}" if names else f"its columns are 1 to {width}"
        raise UserError(f"{path}: has no column '{column}' for data.columns.{field}; {known}")
    if int(column) > width and field == "tokens":
        raise UserError(f"{path}: has {width} columns, data.columns.tokens is {column}")
    return int(column) - 1 if int(column) <= width else None


def _fault(where: str, cells: list[str], width: int, reading: Reading) -> str:
    if not cells[0]:
        return f"{where}: the token is missing; write token, separator, tag"
    if len(cells) == 1:
        return _no_tag(where, cells[0])
    table = "; if it is a table with a header, set `data.format: tsv`" if reading.format is None else ""
    comment = "; a comment stands before a sentence's first word" if cells[0].startswith("#") else ""
    return (
        f"{where}: {len(cells)} columns where the lines above have {width}; "
        f"separate the columns by TAB if a token holds blanks{comment}{table}"
    )


def _no_tag(where: str, token: str) -> str:
    return f"{where}: '{token}' has no tag; write token, separator, tag (O outside an entity)"
