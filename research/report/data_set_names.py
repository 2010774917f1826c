"""Names of data sets in tables, from what the config says of the data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.data.in_memory import CACHE_FOLDER
from research.data.split import share_of


def data_set_name(data: Mapping[str, Any], parts: int = 1) -> str:
    """`data.title`, the hub's name, the folder of the evaluated file, or `rows in memory`.

    `parts` of its place: more than one where two data sets would share a name, then with digits of what was in memory.
    """
    if data["title"]:
        return str(data["title"])
    files = [data[split] for split in ("test", "validation", "train") if data[split]]
    file = str(next((name for name in files if share_of(str(name)) is None), ""))
    if data["name"]:
        name = str(data["name"]) if parts > 1 else str(data["name"]).rsplit("/")[-1]
        return "/".join(filter(None, (name, data["config"], file if parts > 2 else "")))
    path = Path(file).absolute()
    if path.parent.parent.name == CACHE_FOLDER:
        return f"rows in memory {path.parent.name[: 2 * parts]}" if parts > 1 else "rows in memory"
    if parts == 1:
        return path.parent.name
    return "/".join((*path.parts[-parts:-1], path.stem))
