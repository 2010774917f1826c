"""A user's own component files (task, adapter, method, augmentation, callback, metric) as a run used them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from research.common.files import write_atomically
from research.config import component
from research.config.schema import Config

FOLDER = "code"  # of a run, with the copies


def users_files(config: Config, metric: str) -> dict[str, Path]:
    """The files of the components that do not come with the package: `task my_task` -> path."""
    named = [("task", config.task.name), ("adapter", config.adapter.name), ("metric", metric)]
    sections = {"method": config.methods, "augmentation": config.augment, "callback": config.callbacks}
    joint = getattr(config.task, "tasks", {}) if config.task.name == "multi" else {}
    named += [("task", own["task"]["name"]) for own in joint.values()]
    named += [(kind, keys.name) for kind, section in sections.items() for keys in section.values()]
    paths = [(kind, component.find(kind, name)) for kind, name in named if component.is_users(name)]
    return {f"{kind} {path.stem}": path for kind, path in paths}


def keep(run_folder: Path, files: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Copy the files into a run's folder, each under a name with its hash. Returns what provenance says of them."""
    kept = {}
    for name, path in files.items():
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        copy = run_folder / FOLDER / f"{path.stem}-{sha256[:12]}.py"
        if not copy.is_file():
            copy.parent.mkdir(exist_ok=True)
            with write_atomically(copy) as temporary:
                shutil.copyfile(path, temporary)
        kept[name] = {"path": str(path), "sha256": sha256, "copy": f"{FOLDER}/{copy.name}"}
    return kept


def versions(provenance: Mapping[str, Any]) -> dict[str, list[str]]:
    """The hashes of each of the user's files over the attempts of a run, each once, in order."""
    found: dict[str, list[str]] = {}
    for attempt in provenance.get("attempts") or []:
        for name, stored in (attempt.get("components") or {}).items():
            if stored["sha256"] not in found.setdefault(name, []):
                found[name].append(stored["sha256"])
    return found


def changes(provenance: Mapping[str, Any], now: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """A sentence for each file that is not the one that the last attempt used."""
    earlier = provenance.get("attempts") or []
    before: dict[str, Any] = next((a["components"] for a in reversed(earlier) if "components" in a), {})
    for name, stored in now.items():
        if name in before and before[name]["sha256"] != stored["sha256"]:
            yield (
                f"The file of {name} was changed since the last attempt (sha256 {before[name]['sha256'][:12]}… -> "
                f"{stored['sha256'][:12]}…): from now on the new one is used. The earlier one is kept as "
                f"{before[name]['copy']}."
            )
