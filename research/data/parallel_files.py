"""Parallel text: two files of as many lines, line i of one in another language than line i of the other.

`train.{en,de}` names `train.en` and `train.de`: the first is the source, the second the target.
"""

from __future__ import annotations

import hashlib
import re
from itertools import zip_longest

from research.common.errors import UserError
from research.common.text import counted
from research.data.json_files import Rows
from research.data.lines import BY_NAME, Reading, read_lines

_BRACES = re.compile(r"(.*)\{([^{},]+),([^{},]+)\}(.*)")


def parallel_files(name: str) -> tuple[str, str] | None:
    """The two files that a name with braces means; None for any other name."""
    found = _BRACES.fullmatch(name)
    return (f"{found[1]}{found[2]}{found[4]}", f"{found[1]}{found[3]}{found[4]}") if found else None


def read_parallel(path: str, reading: Reading = BY_NAME) -> Rows:
    """Rows {"source", "target"} of two files, a line each. Raises UserError where one file has more lines."""
    files = parallel_files(path)
    assert files is not None
    lines = zip_longest(*(read_lines(file, reading.encoding) for file in files))
    for place, (first, second) in enumerate(lines, 1):
        if first is None or second is None:
            counts = [sum(1 for _ in read_lines(file, reading.encoding)) for file in files]
            said = [f"{file} has {counted(count, 'line')}" for file, count in zip(files, counts, strict=True)]
            raise UserError(
                f"{' and '.join(said)}: line {place} has no partner; parallel files have as many lines each"
            )
        yield place, {"source": first[1].rstrip("\r\n"), "target": second[1].rstrip("\r\n")}


def joint_sha256(digests: list[str]) -> str:
    """The fingerprint of several files."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
