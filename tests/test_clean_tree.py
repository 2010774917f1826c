"""A session whose tests leave files in the repository fails and names them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.clean_tree import untracked


def test_files_that_git_neither_tracks_nor_ignores(tmp_path: Path) -> None:
    assert untracked(tmp_path) == set()  # no checkout
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text("runs/\n")
    for name in ("runs/a", "'/tmp/odd folder/b", "ä"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert untracked(tmp_path) == {"runs/", ".gitignore", "'/tmp/odd folder/b", "ä"}
