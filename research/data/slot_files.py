"""Reader of intents and slots as ATIS and SNIPS are published: a folder with `seq.in`, `seq.out` and `label`.

Line i of `seq.in` has the words of an utterance, of `seq.out` a tag for each of them, of `label` the intent.
"""

from __future__ import annotations

import os
from itertools import zip_longest
from pathlib import Path

from research.common.errors import UserError
from research.data.json_files import Row, Rows
from research.data.lines import BY_NAME, Reading, read_lines

NAMES = ("seq.in", "seq.out", "label")


def slot_files(path: str) -> tuple[str, ...] | None:
    """The files of a folder that holds utterances, as many of them as there are; None for anything else."""
    files = tuple(file for file in (os.path.join(path, name) for name in NAMES) if os.path.isfile(file))
    return files if files and files[0].endswith(NAMES[0]) else None


def read_slots(path: str, reading: Reading = BY_NAME) -> Rows:
    """Rows {"tokens", "tags", "label"}, the place that of the line; a folder of new text has tokens alone.

    Raises UserError where the numbers of lines differ, or of tags and words in a line.
    """
    words, tags, labels = (Path(path) / name for name in NAMES)
    missing = [file.name for file in (tags, labels) if not file.is_file()]
    if len(missing) == 1:
        raise UserError(f"{path}: has no file {missing[0]}; give {', '.join(NAMES)}, or seq.in alone for new text")
    files = [words] if missing else [words, tags, labels]
    for place, lines in enumerate(zip_longest(*(read_lines(str(file), reading.encoding) for file in files)), 1):
        if None in lines:
            short = files[lines.index(None)]
            raise UserError(f"{short} ends before line {place}; {', '.join(NAMES)} have as many lines each")
        parts = [line.strip() for _, line in lines]
        row: Row = {"tokens": parts[0].split()}
        if not missing:
            row |= {"tags": parts[1].split(), "label": parts[2]}
            if len(parts[1].split()) != len(parts[0].split()):
                count = f"{len(parts[1].split())} tags for {len(parts[0].split())} words"
                raise UserError(f"{tags}, line {place}: {count} of {words}, line {place}; give a tag for each word")
        yield place, row
