"""The settings of a run: the config keys that decide its numbers, flat, compared and written as people write them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from research.config.tree import ONE_OF, SOME_OF
from research.report.deciding_settings import SEEDS
from research.report.records import Record

DATA_KEYS = (
    "task.name",
    "task.rules",
    *(f"data.{key}" for key in ["name", "config", "revision", "train", "validation", "test", "columns", "labels"]),
)
MOST_PATH_PARTS = 12  # of a path in a name


def differing_keys(records: Sequence[Record]) -> list[str]:
    """The keys in which runs on one data set differ, other than the seeds, in the order of the config."""
    first: dict[str, dict[str, Any]] = {}
    found: set[str] = set()
    order: dict[str, None] = {}
    for record in records:
        settings = record.settings
        order |= dict.fromkeys(settings)
        other = first.setdefault(record.data_set, settings)
        found |= {key for key in {*settings, *other} if settings.get(key) != other.get(key)}
    return _without_determined([key for key in order if key in found], records)


def keys_of_systems(keys: Sequence[str]) -> list[str]:
    """Those of the keys in which runs on one data set differ that tell their systems apart, the task among them."""
    return [key for key in keys if key not in DATA_KEYS or key == "task.name"]


def _without_determined(keys: Sequence[str], records: Sequence[Record]) -> list[str]:
    """The keys without those that say no more than which component a run has: a component's own keys, where not all
    runs have it and those that do agree in them. Of a method, whose presence no other key tells, the first stays."""
    kept: list[str] = []
    told: set[str] = set()
    for key in keys:
        section, _, own = key.partition(".")
        component = ".".join(key.split(".")[:2]) if section in SOME_OF else section
        having = {canonical(record.settings[key]) for record in records if key in record.settings}
        absent = any(key not in record.settings for record in records)
        if component in (*ONE_OF, *told) and own != "name" and absent and len(having) == 1:
            continue
        kept.append(key)
        if section in SOME_OF:
            told.add(component)
    return kept


def system_name(texts: Mapping[str, str]) -> str:
    """Short name of a system from its settings as text: `lr 3e-5, dropout 0.1`; models and tasks go by their names
    alone, a key that the system has not by nothing, and several methods by those that it has."""
    found = []
    for head, keys in columns_of(list(texts)):
        text = column_text(keys, texts)
        if len(keys) > 1:
            found.append(text if text != "none" else f"no {head}")
        elif text:
            found.append(text if keys[0] in ("model.name", "task.name") else f"{head} {text}")
    return ", ".join(found)


def columns_of(keys: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Heads of the columns that tell systems apart by these keys, each with its keys: one for all keys of methods where
    there are several methods, of which a run has few; so of `augment`."""
    components = {section: {key.split(".")[1] for key in keys if key.startswith(f"{section}.")} for section in SOME_OF}
    found: dict[str, list[str]] = {}
    for key in keys:
        section = key.partition(".")[0]
        found.setdefault(section if len(components.get(section, ())) > 1 else key, []).append(key)
    return [(name if name in SOME_OF else key_text(name), own) for name, own in found.items()]


def column_text(keys: Sequence[str], texts: Mapping[str, str]) -> str:
    """The cell of a system in a column of `columns_of`: `fgm epsilon 0.1` of several methods, or none of them."""
    if len(keys) == 1:
        return texts[keys[0]]
    return ", ".join(f"{key_text(key)} {texts[key]}" for key in keys if texts[key] not in ("", "none")) or "none"


def distinct_texts(values: Iterable[Any]) -> dict[str, str]:
    """Values as a reader writes them, by `canonical`; paths get as many of their last parts as tell them apart."""
    found = {canonical(value): value for value in values}
    texts = {key: value_text(value) for key, value in found.items()}
    for parts in range(2, MOST_PATH_PARTS):
        shared = {text for text, count in Counter(texts.values()).items() if count > 1}
        texts |= {key: value_text(found[key], parts) for key, text in texts.items() if text in shared}
    return texts


def key_text(key: str) -> str:
    """The last part of a key in words, as in `weight decay`; `adapter` for `adapter.name`, `r drop alpha` for a
    method's own key, whose last part other methods have too."""
    parts = key.removesuffix(".name").split(".")
    return " ".join(parts[1 if parts[0] in SOME_OF else -1 :]).replace("_", " ")


def value_text(value: Any, parts: int = 1) -> str:
    """A config value as a reader writes it: 3e-5, not 3e-05; a path by its last parts."""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if value == 0 or 1e-3 <= abs(value) < 1e6:
            return f"{value:g}"
        return re.sub(r"\.?0*e\+?(-?)0?(\d+)", r"e\1\2", f"{value:.6e}")
    if isinstance(value, list) and all(isinstance(each, str | int | float) for each in value):
        return ", ".join(map(value_text, value)) or "none"
    if isinstance(value, str):
        own = Path(value).parts if "/" in value else (value,)
        return "/".join(own[-parts - 2 * (own[-1] == "model") :])  # a run's model is called by the run
    return str(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False)


def sort_key(value: Any) -> tuple[int, float, str]:
    """Numbers by size, then texts by their letters; nothing first."""
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, int | float):
        return (1, float(value), "")
    return (2, 0.0, str(value))


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=False, ensure_ascii=False)


def place_of(run: Record) -> tuple[int, ...]:
    """Which of its system's runs it is: fold, few-shot sample, seed, and the seeds of initialisation and order."""
    seed = run.seed
    return (
        -1 if run.fold is None else run.fold,
        -1 if run.sample is None else run.sample,
        seed,
        *(seed if run.config[key] is None else int(run.config[key]) for key in SEEDS[1:]),
    )
