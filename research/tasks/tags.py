"""The tags of words in a data set: their scheme, and those that a finished run cannot give."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from research.common.errors import UserError
from research.data.labels import not_of_the_run
from research.data.source import Split
from research.metrics.tags import Scheme, detect_scheme


def scheme_of(splits: Sequence[Split]) -> Scheme:
    """The tag scheme of all splits together. Raises UserError at the first row whose tags are of none."""
    tagged = [split for split in splits if "tags" in split.rows.column_names]
    try:
        return detect_scheme(chain.from_iterable(split.rows["tags"] for split in tagged))
    except ValueError as error:
        for split in tagged:
            for row, tags in enumerate(split.rows["tags"]):
                try:
                    detect_scheme([tags])
                except ValueError as fault:
                    raise UserError(f"{split.where(row)}: {fault}.") from None
        raise UserError(f"{', '.join(split.origin for split in tagged)}: {error}.") from None


def refuse_other_tags(split: Split, tags: Sequence[str], scheme: Scheme) -> None:
    """Raise UserError at the first row with a type of entity that is not in `tags`, or a tag of another scheme."""
    types = {tag[2:] or tag for tag in tags}
    rows = split.rows["tags"] if "tags" in split.rows.column_names else ()
    for row, found in enumerate(rows):
        for tag in found:
            if scheme == "IOB2" and tag[:1] not in ("B", "I", "O"):
                raise UserError(f"{split.where(row)}: '{tag}' is no tag of IOB2, as the run's are; convert the tags.")
            kind = tag.partition("-")[2] or tag
            if kind not in types:
                raise not_of_the_run(split, row, kind, types)
