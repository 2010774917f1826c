"""Files that say one thing of each label, such as its description or the label above it."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from research.common.errors import UserError
from research.data.entity_spans import OUTSIDE

log = logging.getLogger("research")

_MOST_NAMED = 10  # labels that a warning names
SUFFIXES = (".json", ".yaml", ".yml", ".tsv", ".csv")


def read_values(file: str, key: str) -> dict[str, str | None]:
    """JSON or YAML of `label: value`, or lines of a label, a tab or comma, and its value; None where there is none.

    `key` names the file in errors. Raises UserError for another form, and for a label that is there twice.
    """
    path = Path(file)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{key}={file}: its suffix must be one of {', '.join(SUFFIXES)}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix in (".tsv", ".csv"):
            return _of_lines(text, "\t" if path.suffix == ".tsv" else ",", file)
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{key}={file} cannot be read ({' '.join(str(error).split())}).") from None
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{key}={file} must have a line for each label, as in `physics: science`.")
    return {str(label): None if value in (None, "") else str(value) for label, value in content.items()}


def read_descriptions(file: str | None, labels: Sequence[str]) -> dict[str, str]:
    """What each label means, from a file or none; a tag such as B-PER means what PER does.

    Logs labels without a meaning, and meanings of what is no label.
    """
    if file is None:
        return {}
    found = {label: text for label, text in read_values(file, "data.label_descriptions").items() if text}
    missing = [label for label in labels if label != OUTSIDE and not {label, label[2:]} & found.keys()]
    if missing:
        log.warning("%s has no description of %d labels: %s.", file, len(missing), ", ".join(missing[:_MOST_NAMED]))
    others = sorted(found.keys() - {*labels, *(label[2:] for label in labels if label[1:2] == "-")})
    if others:
        log.warning("%s describes what is no label: %s.", file, ", ".join(others[:_MOST_NAMED]))
    return found


def _of_lines(text: str, separator: str, file: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for number, cells in enumerate(csv.reader(io.StringIO(text), delimiter=separator), 1):
        label, value = ([cell.strip() for cell in cells] + ["", ""])[:2]
        if not any(cells):
            continue
        if len(cells) > 2 or not label:
            between = "a comma" if separator == "," else "a tab"
            raise UserError(f"{file}, line {number}: write a label, {between}, and its value, which may be empty.")
        if label in found:
            raise UserError(f"{file}, line {number}: '{label}' is there twice.")
        found[label] = value or None
    return found
