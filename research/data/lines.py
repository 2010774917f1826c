"""Lines of a text file: its encoding, its line ends, and the codec to name where it is not UTF-8."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from research.common.errors import UserError

_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_EAST_ASIAN = ("gb18030", "big5", "euc_jp", "shift_jis", "euc_kr")
_SAMPLE_BYTES = 1 << 16


@dataclass(frozen=True)
class Reading:
    """How a text file is read where its name and content do not say it: the keys of `data` of the same names."""

    format: str | None = None
    encoding: str | None = None
    separator: str | None = None
    quoting: str = "auto"
    header: bool = True
    tokens: str | None = None  # the CoNLL column of the words: its number from 1, or its name
    tags: str | None = None
    plain: str = "conll"  # the format of a .txt file, for a task that reads plain text


BY_NAME = Reading()  # by the file's name and content alone


def read_lines(path: str, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """(1-based number, line with its end). Lines end in LF or CR LF, or in CR alone in a file without LF.

    UTF-8 with or without a byte order mark, UTF-16 and UTF-32 with one; any other `encoding` must be named.
    Raises UserError at the first byte that does not fit, with the codec that does.
    """
    encoding = encoding or _encoding_of_mark(path) or "utf-8"
    if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig"):
        yield from _utf8_lines(path)
        return
    number = 0
    try:
        with open(path, encoding=encoding, newline="") as file:
            for number, line in enumerate(file, 1):
                yield number, line.removeprefix("\ufeff") if number == 1 else line
    except UnicodeError as error:
        raise UserError(f"{path}, after line {number}: is not {encoding} ({error}); check data.encoding") from None


def _utf8_lines(path: str) -> Iterator[tuple[int, str]]:
    with open(path, "rb") as file:
        for number, raw in enumerate(file if _has_line_feed(path) else file.read().splitlines(keepends=True), 1):
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
                _refuse_nulls(raw, path)
            try:
                yield number, raw.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte {error.start + 1} (0x{raw[error.start]:02x})"
                raise UserError(f"{path}, line {number}: {byte} is not UTF-8; {_remedy(path, raw)}") from None


def _encoding_of_mark(path: str) -> str | None:
    with open(path, "rb") as file:
        start = file.read(4)
    return next((name for mark, name in _BOMS if start.startswith(mark)), None)


def _has_line_feed(path: str) -> bool:
    with open(path, "rb") as file:
        return any(b"\n" in piece for piece in iter(lambda: file.read(1 << 20), b""))


def _refuse_nulls(raw: bytes, path: str) -> None:
    """UserError for UTF-16 without a byte order mark, which is valid UTF-8 where its letters are ASCII."""
    if 4 * raw.count(0) >= len(raw) > 1:
        raise UserError(f"{path}: is UTF-16 without a byte order mark; set `data.encoding: {likely_encoding(raw)}`")


def _remedy(path: str, line: bytes) -> str:
    with open(path, "rb") as file:
        sample = file.read(_SAMPLE_BYTES) + line
    encoded = len(re.findall(rb"[\xc3-\xf4][\x80-\xbf]+", sample))
    if encoded > len(re.findall(rb"[\x80-\xff]+", sample)) / 2:
        return "the file is UTF-8 elsewhere: correct this line"
    encoding = likely_encoding(sample)
    shown = line.decode(encoding, "replace").strip()[:60]
    return f"it reads as {encoding} (this line: {shown}): set `data.encoding: {encoding}`, or save the file as UTF-8"


def likely_encoding(sample: bytes) -> str:
    """The codec that text which is not UTF-8 is most likely in.

    Null bytes tell UTF-16. Bytes above 127 stand alone in Western European text (cp1252, of which Latin-1's letters
    are a part), in runs elsewhere: from 0xC0 on almost only in Cyrillic (cp1251), in pairs in East Asian text.
    """
    if sample.count(0):
        return "utf-16-le" if sample[1::2].count(0) >= sample[::2].count(0) else "utf-16-be"
    runs = re.findall(rb"[\x80-\xff]+", sample)
    high = b"".join(runs)
    if len(high) < 2 * len(runs):
        return "cp1252" if not set(high) & set(b"\x81\x8d\x8f\x90\x9d") else "latin-1"
    if sum(byte < 0xC0 for byte in high) < len(high) / 10:
        return "cp1251"
    for encoding in _EAST_ASIAN:
        try:
            sample[: sample.rfind(b"\n") + 1 or None].decode(encoding)
            return encoding
        except UnicodeDecodeError:
            continue
    return "cp1252"
