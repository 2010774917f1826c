"""The files that training leaves in a run folder, read and checked: config.yaml, result.json, provenance.json,
outcome.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from research.common.errors import UserError
from research.config.load import completed
from research.metrics.score import from_record

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a run, with the defaults of keys younger than it. Raises UserError where it is none."""
    path = folder / "config.yaml"
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict) or "task" not in config:
        raise UserError(f"{path} is not the config of a run: it names no task.")
    return completed(config, str(path))


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, None without the file. Raises UserError where it lacks what a report reads."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object.")
    if wrong := _wrong_part(path.stem, content):
        raise UserError(f"{path} is damaged: {wrong}; restore it, or leave the run out.")
    return content


def _wrong_part(stem: str, content: dict[str, Any]) -> str | None:
    """What of result.json, provenance.json or outcome.json is not as training writes it."""
    try:
        from_record((content.get("metric") or {}).get("scores") or [])
    except (TypeError, AttributeError, KeyError):
        return "'metric' is not as training writes it"
    if stem == "outcome":
        return None if content.get("state") in ("pruned", "failed") else "'state' is not pruned or failed"
    name = "metrics" if stem == "result" else "data"
    splits = content.get(name, {} if stem == "provenance" else None)
    if not isinstance(splits, dict):
        return f"'{name}' is missing or no JSON object"
    for split, part in splits.items():
        if part is not None and not isinstance(part, dict):
            return f"'{name}.{split}' is no JSON object"
        missing = [key for key in ("sha256", "examples") if stem == "provenance" and part and key not in part]
        if missing:
            return f"'{name}.{split}' lacks {' and '.join(missing)}"
    return None
