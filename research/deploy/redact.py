"""Redact personal data in text: what has a form by patterns, names by a named-entity run of one's own.

The text that a model reads is left alone; this is for what is kept: logs, samples, feedback.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from research.common.errors import UserError
from research.common.files import write_atomically
from research.deploy.patterns import PATTERNS

if TYPE_CHECKING:
    from research.inference.predictor import Predictor

TOGETHER = 32  # texts that a named-entity run reads at once


@dataclass(frozen=True, order=True)
class Found:
    """Personal data in a text, by characters."""

    start: int
    end: int
    kind: str


Finder = Callable[[Sequence[str]], list[list[Found]]]


def by_patterns(text: str) -> list[Found]:
    """What has a form, in the order of the text; an earlier kind of `PATTERNS` wins where two claim a place."""
    found, taken = [], bytearray(len(text))
    for pattern in PATTERNS:
        for match in pattern.expression.finditer(text):
            start, end = match.span()
            if not any(taken[start:end]) and pattern.holds(match.group()):
                found.append(Found(start, end, pattern.kind))
                taken[start:end] = b"1" * (end - start)
    return sorted(found)


def by_run(predictor: Predictor, kinds: Sequence[str] | None, texts: Sequence[str]) -> list[list[Found]]:
    """The entities that a named-entity run finds, of these kinds or of all."""
    written = [(i, text) for i, text in enumerate(texts) if text.strip()]
    questions = [predictor.question({"text": text}) for _, text in written]
    found: list[list[Found]] = [[] for _ in texts]
    if questions:
        for (i, _), answer in zip(written, predictor.answer(questions), strict=True):
            found[i] = [Found(each["start"], each["end"], each["label"]) for each in answer["entities"]
                        if kinds is None or each["label"] in kinds]  # fmt: skip
    return found


def finder(predictor: Predictor | None = None, kinds: Sequence[str] | None = None) -> Finder:
    """What finds personal data in texts. Raises UserError for a run of another task, and for kinds it does not know."""
    if predictor is None:
        return lambda texts: [by_patterns(text) for text in texts]
    known = {label[2:] for label in predictor.data.labels if label[1:2] == "-"}
    if predictor.required != ["tokens"] or not known:
        raise UserError(f"names are found by a run of the task ner, not {predictor.config.task.name}.")
    if unknown := [kind for kind in kinds or () if kind not in known]:
        raise UserError(f"the run knows no entities of the kind '{unknown[0]}'; it knows {', '.join(sorted(known))}.")
    names = partial(by_run, predictor, kinds)
    return lambda texts: [merged(by_patterns(text), more) for text, more in zip(texts, names(texts), strict=True)]


def merged(formal: list[Found], names: list[Found]) -> list[Found]:
    """Both, in order; where they overlap, the one with a form is kept."""
    taken = {character for each in formal for character in range(each.start, each.end)}
    return sorted([*formal, *(name for name in names if taken.isdisjoint(range(name.start, name.end)))])


def redacted(text: str, found: Sequence[Found], same_length: bool = False) -> str:
    """The text with [KIND] in the place of what was found, or with a block for each of its characters."""
    for place in reversed(found):
        mark = "█" * (place.end - place.start) if same_length else f"[{place.kind}]"
        text = text[: place.start] + mark + text[place.end :]
    return text


def redact_file(source: str, output: str, find: Finder, places: str | None = None, same_length: bool = False) -> int:
    """Redact the lines of a file into another; `-` is standard input or output. Returns how many places there were.

    A file is written completely or not at all. Raises UserError for one that cannot be read.
    """
    with ExitStack() as opened:
        try:
            lines = sys.stdin if source == "-" else opened.enter_context(open(source, encoding="utf-8", newline="\n"))
        except OSError as error:
            raise UserError(f"{source} cannot be read: {error.strerror}.") from None

        def writer(path: str) -> TextIO:
            return opened.enter_context(open(opened.enter_context(write_atomically(Path(path))), "w", encoding="utf-8"))

        try:
            written = sys.stdout if output == "-" else writer(output)
            return redact_lines(lines, find, written, writer(places) if places else None, same_length)
        except UnicodeDecodeError as error:
            raise UserError(f"{source} is not UTF-8 ({error.reason} at byte {error.start}).") from None


def redact_lines(
    lines: Iterable[str], find: Finder, output: TextIO, places: TextIO | None = None, same_length: bool = False
) -> int:
    """Redact lines of text, or of JSON, in which each text is read; returns how many places there were.

    `places` gets a JSON line for each: number of the line from 1, path of the text in its JSON, and the characters of
    the text before redaction.
    """
    count = 0
    for rows in batched(enumerate(lines, 1), TOGETHER):
        contents = [content_of(line) for _, line in rows]
        texts = [list(texts_of(content)) for content in contents]
        found = iter(find([text for mine in texts for _, text in mine]))
        for (number, _), content, mine in zip(rows, contents, texts, strict=True):
            new: list[str] = []
            for path, text in mine:
                there = next(found)
                new.append(redacted(text, there, same_length))
                count += len(there)
                for place in there if places else ():
                    print(json.dumps({"line": number, "path": path, **asdict(place)}), file=places)
            content = replaced(content, iter(new))
            print(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), file=output)
    return count


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of so many items, the last with what is left."""
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def content_of(line: str) -> Any:
    """A line as it is, or the object or list that it holds as JSON."""
    line = line.rstrip("\r\n")
    if line.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            return line
    return line


def texts_of(content: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Each text of a content with its path in it: `messages.0.content`; that of a plain line is empty."""
    if isinstance(content, str):
        yield path, content
    elif isinstance(content, dict | list):
        for name, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from texts_of(value, f"{path}.{name}" if path else str(name))


def replaced(content: Any, new: Iterator[str]) -> Any:
    """A content with other texts in it, in the order of `texts_of`."""
    if isinstance(content, str):
        return next(new)
    if isinstance(content, dict):
        return {name: replaced(value, new) for name, value in content.items()}
    return [replaced(value, new) for value in content] if isinstance(content, list) else content
