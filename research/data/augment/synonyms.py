"""The user's table of synonyms: lines of a word and its synonyms, separated by tabs, in UTF-8.

`film<TAB>movie<TAB>picture`. An entry may be of several words, as in `a lot<TAB>much`, or of characters without spaces.
Case is passed over in looking words up.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from research.common.errors import UserError
from research.data.augment.words import Words, free, text_of, words_of

Table = dict[str, list[str]]
Match = tuple[int, int, list[str]]  # first word and end, and what may replace them


class Synonyms:
    """A table, and the places of its entries in a text."""

    def __init__(self, path: str | None, operation: str) -> None:
        """Raises UserError, with the line, for a table that cannot be read."""
        if path is None:
            raise UserError(
                f"augment.{operation} needs a table of synonyms: set augment.{operation}.table to a file of lines such "
                "as film<TAB>movie<TAB>picture."
            )
        self.path, self.table = path, read_table(Path(path), operation)
        self.longest = max(len(words_of(entry)) for entry in self.table)

    def matches(self, words: Words) -> Iterator[Match]:
        """The longest entry at each word, from the left; entries do not overlap, and hold no entity."""
        can, i = set(free(words)), 0
        while i < len(words):
            for end in range(min(i + self.longest, len(words)), i, -1):
                if set(range(i, end)) <= can and (found := self.table.get(text_of(words[i:end]).lower())):
                    yield i, end, found
                    i = end - 1
                    break
            i += 1


def read_table(path: Path, operation: str) -> Table:
    """Raises UserError for a file that is not there, is not UTF-8, or has a line without a synonym."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"augment.{operation}.table={path} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise UserError(f"augment.{operation}.table={path} is not UTF-8; convert it.") from None
    table: Table = {}
    for number, line in enumerate(content.splitlines(), 1):
        cells = [cell.strip() for cell in line.split("\t") if cell.strip()]
        if len(cells) == 1:
            raise UserError(
                f"{path}, line {number}: '{cells[0]}' has no synonym; write the word, a tab, and its synonyms."
            )
        if cells:
            entry = text_of(words_of(cells[0])).lower()
            table.setdefault(entry, []).extend(each for each in cells[1:] if each.lower() != entry)
    table = {entry: found for entry, found in table.items() if entry and found}
    if not table:
        raise UserError(f"{path}: has no synonyms; write lines of a word, a tab, and its synonyms.")
    return table


def like(synonym: str, text: str) -> str:
    """With a capital where the text that it stands for has one."""
    return synonym[:1].upper() + synonym[1:] if text[:1].isupper() else synonym
