"""What the data are, before anything is trained on them: sizes, labels, lengths, duplicates and overlap of splits."""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from research.common.errors import UserError
from research.config.schema import DataConfig
from research.data.source import Split
from research.data.split import share_of

FEW_EXAMPLES = 50  # of a split below this many, an overlap is reported and not refused
_MOST_LABELS = 20  # that are shown and recorded
_BATCH_ROWS = 1_000
_NO_LETTER = re.compile(r"[\W_]+")


@dataclass
class Overlap:
    """Examples of a split that occur in another one: to the letter, and after normalising."""

    exact: int
    normalised: int


@dataclass
class SplitOverview:
    """One split: counts of examples but for the tokens. `cut` lost text at `data.max_length`."""

    examples: int
    empty: int = 0
    duplicates: int = 0  # that occur in the split before
    conflicting: int = 0  # whose text occurs in the split with another gold answer
    cut: int = 0
    windowed: int = 0  # read in several windows
    median_tokens: int = 0
    longest_tokens: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    overlap: dict[str, Overlap] = field(default_factory=dict)  # with each earlier split

    def record(self) -> dict[str, Any]:
        """Plain values for JSON; the labels where they are few."""
        content = asdict(self)
        return {**content, "labels": self.labels if len(self.labels) <= _MOST_LABELS else len(self.labels)}


def overview_of(splits: Mapping[str, Split], inputs: Sequence[str], gold: str | None) -> dict[str, SplitOverview]:
    """Look at each split: `inputs` are the fields that make an example's text, `gold` the field of its answer."""
    found: dict[str, SplitOverview] = {}
    seen: dict[str, tuple[set[int], set[int]]] = {}
    for name, split in splits.items():
        about, exact, normalised = SplitOverview(len(split.rows)), Counter[int](), Counter[int]()
        answers: dict[int, set[str]] = {}
        labels: Counter[str] = Counter()
        for texts, answer in _examples(split, inputs, gold):
            key = hash(tuple(texts))
            exact[key] += 1
            normalised[hash(tuple(map(normal, texts)))] += 1
            about.empty += not any(text.strip() for text in texts[:1])
            if answer is not None:
                answers.setdefault(key, set()).add(repr(answer))
                if not isinstance(answer, list | dict):
                    labels[str(answer)] += 1
        about.duplicates = len(split.rows) - len(exact)
        about.conflicting = sum(exact[key] for key, golds in answers.items() if len(golds) > 1)
        about.labels = dict(labels.most_common())
        for other, (texts_of, normals_of) in seen.items():
            about.overlap[other] = Overlap(
                sum(count for key, count in exact.items() if key in texts_of),
                sum(count for key, count in normalised.items() if key in normals_of),
            )
        seen[name], found[name] = (set(exact), set(normalised)), about
    return found


def normal(text: str) -> str:
    """A text without case, punctuation and repeated blanks, its characters in one form (NFKC)."""
    composed = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return _NO_LETTER.sub(" ", composed.casefold()).strip()


def refuse_same_file(splits: Mapping[str, Split], data: DataConfig) -> None:
    """Raise UserError where the experiment names the same rows of one file, or of the hub, for two splits."""
    values = {name: getattr(data, name) for name in splits}
    named = [splits[name] for name, value in values.items() if value and share_of(value) is None]
    for one, other in itertools.combinations(named, 2):
        if one.taken is None or other.taken is None:
            same = one.fingerprint == other.fingerprint
        else:
            common = range(max(one.taken.start, other.taken.start), min(one.taken.stop, other.taken.stop))
            same = len(common) > 0 and os.path.realpath(one.origin) == os.path.realpath(other.origin)
        if same:
            raise UserError(
                f"{other.origin}: {other.name} is the same file as {one.name}, so that its score says nothing of new "
                f"texts; give other data, a share of train (`data.{other.name}: 0.1`), or slices without a common row "
                "(`[:80%]` and `[80%:]` behind the name)"
            )


def refuse_overlap(splits: Mapping[str, Split], found: Mapping[str, SplitOverview], most: float) -> None:
    """Raise UserError where a split holds more than the share `most` of an earlier one's texts."""
    for name, about in found.items():
        for other, overlap in about.overlap.items():
            share = overlap.normalised / max(about.examples, 1)
            if about.examples < FEW_EXAMPLES or share <= most:
                continue
            what = f"has {overlap.normalised:,} of {about.examples:,} texts in common with"
            remedy = f"give other data, a share of train (`data.{name}: 0.1`)"
            if splits[name].drawn and splits[name].origin == splits[other].origin:  # shares of one file
                remedy = "let equal texts stay in one part (`data.group: text`, or another column)"
            if (splits[name].fingerprint, splits[name].drawn) == (splits[other].fingerprint, splits[other].drawn):
                what = "is the same data as"
            raise UserError(
                f"{splits[name].origin}: {name} {what} {other}, so that its score says little; {remedy}, "
                f"or allow it: `data.max_overlap: {min(1.0, share + 0.005):.2f}`"
            )


def sentences(found: Mapping[str, SplitOverview]) -> list[str]:
    """A line for each split: its size, then what is odd about it."""
    return [f"{name}: " + "; ".join(_said(about)) for name, about in found.items()]


def _said(about: SplitOverview) -> Iterator[str]:
    yield f"{about.examples:,} examples of {about.median_tokens:,} tokens (median; longest {about.longest_tokens:,})"
    if 1 < len(about.labels) <= _MOST_LABELS:
        total = sum(about.labels.values())
        yield "labels " + ", ".join(f"{label} {100 * n / total:.1f} %" for label, n in about.labels.items())
    odd = {
        "cut at data.max_length": about.cut,
        "read in several windows": about.windowed,
        "empty": about.empty,
        "duplicates": about.duplicates,
        "with conflicting gold": about.conflicting,
    }
    for what, count in odd.items():
        if count:
            yield f"{count:,} {what} ({100 * count / about.examples:.1f} %)"
    for other, overlap in about.overlap.items():
        if overlap.normalised:
            share = 100 * overlap.normalised / about.examples
            yield f"{overlap.normalised:,} also in {other} ({share:.1f} %, {overlap.exact:,} to the letter)"


def _examples(split: Split, inputs: Sequence[str], gold: str | None) -> Iterator[tuple[list[str], Any]]:
    columns = [name for name in dict.fromkeys([*inputs, *([gold] if gold else [])]) if name in split.rows.column_names]
    fields = [name for name in inputs if name in columns]
    for batch in split.rows.select_columns(columns).with_format("arrow").iter(_BATCH_ROWS):
        for row in batch.to_pylist():
            texts = [_as_text(row[name]) for name in fields]
            yield texts, row.get(gold) if gold else None


def _as_text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
