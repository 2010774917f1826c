"""Tests leave nothing in the repository: what git does not track there is compared from the start to the end."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def untracked(folder: Path = ROOT) -> set[str]:
    """Files that git neither tracks nor ignores, and the folders of runs; none outside a checkout or without git."""
    seen = ["--exclude-standard"], ["--directory", "--", "runs", "wandb", "paper"]
    return {path for options in seen for path in _others(folder, options)}


def _others(folder: Path, options: list[str]) -> list[str]:
    command = ["git", "-C", str(folder), "ls-files", "--others", "-z", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="surrogateescape")
    except OSError:
        return []
    return [path for path in done.stdout.split("\0") if path] if done.returncode == 0 else []
