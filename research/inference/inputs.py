"""New text to label: a file, standard input, or texts of the command line, and how it is read."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from research.common.errors import UserError
from research.config.load import merge
from research.config.parse import parse_override, typed
from research.data.formats import FORMATS, has_known_suffix
from research.data.source import missing_file
from research.data.words import words_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from research.config.schema import Config
    from research.training.datamodule import TaskData

READING_KEYS = ("columns", "format", "encoding", "separator", "quoting", "header")  # of data: what may differ here


def read_as_asked(config: Config, source: str | None, overrides: Sequence[str]) -> None:
    """Take over `data.columns.text=body` and the like for the new text.

    Its encoding is its own, and so is its format where its suffix says it and is not that of the training file. Raises
    UserError for another key.
    """
    config.data.encoding = None
    as_trained = source is not None and Path(source).suffix == Path(str(config.data.train)).suffix
    if source in (None, "-") or (has_known_suffix(str(source)) and not as_trained):
        config.data.format = None
    for argument in overrides:
        origin, content = parse_override(argument)
        data = content.get("data") if set(content) == {"data"} else None
        if not isinstance(data, dict) or set(data) - set(READING_KEYS):
            keys = ", ".join(f"data.{key}" for key in READING_KEYS)
            raise UserError(f"{origin}: a finished run is asked with its own settings; here only {keys}")
        merged = merge(OmegaConf.structured(config.data), typed(data, config.data, origin), origin)
        config.data = OmegaConf.to_object(merged)  # type: ignore[assignment]
    if config.data.format not in (None, *FORMATS):
        raise UserError(f"data.format={config.data.format} must be one of {', '.join(FORMATS)}")


def refuse_two_sources(source: str | None, texts: Sequence[str]) -> None:
    """Raise UserError unless new text comes from one place that exists."""
    if (source is None) is (not texts):
        raise UserError("give new text by --input FILE (- for standard input) or by --text, one of them")
    if source not in (None, "-") and not Path(source).exists():
        raise UserError(missing_file(Path(source)))


@contextmanager
def as_file(data: TaskData, source: str | None, texts: Sequence[str]) -> Iterator[str]:
    """The path of a file with the new rows, made for the time of the block where they do not come as one."""
    if source is not None and source != "-":
        yield source
        return
    given = b"" if source is None else sys.stdin.buffer.read()
    with TemporaryDirectory() as folder:
        start = given.lstrip()[:1]
        if source == "-" and (start in (b"{", b"[") or data.config.data.format):
            path = Path(folder) / ("input.jsonl" if start == b"{" else "input.json" if start == b"[" else "input")
            path.write_bytes(given)
        else:
            lines = [line for line in _decoded(data, given).splitlines() if line.strip()]
            path, data.config.data.format, data.config.data.encoding = Path(folder) / "input.jsonl", None, None
            path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(data, [*texts, *lines])), "utf-8")
        yield str(path)


def _decoded(data: TaskData, given: bytes) -> str:
    try:
        return given.decode(data.config.data.encoding or "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"standard input is not {error.encoding} ({error.reason}); set data.encoding") from None


def rows_of(data: TaskData, texts: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each text, for a task that reads one field: a text, or the words of one."""
    if not texts:
        raise UserError("there is no text to label; give --text, lines on standard input, or a file by --input")
    needed = [field for field in data.fields if field not in (*data.gold, *data.optional)]
    if len(needed) > 1:
        raise UserError(
            f"task '{data.config.task.name}' reads {', '.join(needed)} of a row, not one text; give a file by --input, "
            "or JSON lines on standard input (--input -)"
        )
    if not needed:  # several tasks at once, which refuse any input
        return [{} for _ in texts]
    column = data.config.data.columns.get(needed[0], data.fields[needed[0]])
    return [{column: words_of(text) if needed[0] in data.text_lists else text} for text in texts]
