"""Reader of relation classification data as SemEval-2010 Task 8 publishes it (Hendrickx et al., 2010)."""

from __future__ import annotations

import re

from research.common.errors import UserError
from research.data.json_files import Rows
from research.data.lines import BY_NAME, Reading, read_lines

_SENTENCE = re.compile(r'(\d+)\t"?(.*?)"?')


def read_semeval(path: str, reading: Reading = BY_NAME) -> Rows:
    """Sentences as {"id", "text", "label", "comment"}, a block of lines each, their place the first one's.

    A block is `ID TAB "text with <e1>the</e1> <e2>entities</e2>"`, the relation, `Comment: ...`, and a blank line; the
    relation is missing (null) where it is to be predicted. Raises UserError for a block of another form.
    """
    block: list[tuple[int, str]] = []
    for number, line in read_lines(path, reading.encoding):
        if line.strip():
            block.append((number, line.strip()))
        elif block:
            yield block[0][0], _row(block, path)
            block = []
    if block:
        yield block[0][0], _row(block, path)


def _row(block: list[tuple[int, str]], path: str) -> dict[str, str | None]:
    number, first = block[0]
    found = _SENTENCE.fullmatch(first)
    others = [line for _, line in block[1:]]
    labels = [line for line in others if not line.startswith("Comment:")]
    if found is None or len(labels) > 1:
        raise UserError(
            f"{path}, line {number}: not a sentence of SemEval-2010 Task 8 ({first[:40]!r}); write the id, a TAB, the "
            'text in double quotes, then a line with the relation, a line "Comment:", and a blank line'
        )
    comments = [line.removeprefix("Comment:").strip() for line in others if line.startswith("Comment:")]
    label = labels[0] if labels else None
    return {"id": found[1], "text": found[2], "label": label, "comment": " ".join(comments)}
