"""What a run records holds no secrets, and no command runs code that lies in the current folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import research
from research.tracking.provenance import code, without_secrets

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("remote", "kept"),
    [
        (f"https://user:{SECRET}@host/a/b.git", "https://host/a/b.git"),
        (f"https://{SECRET}@host/a.git?x=1", "https://host/a.git"),
        (f"https://host/a/b.git?private_token={SECRET}", "https://host/a/b.git"),
        (f"https://host/a#{SECRET}", "https://host/a"),
        (f"https://user:{SECRET}@more@host/a", "https://host/a"),
        ("git@github.com:a/b.git", "git@github.com:a/b.git"),
        ("ssh://git@host:22/a", "ssh://host:22/a"),
    ],
)
def test_remotes_lose_their_secrets(remote: str, kept: str) -> None:
    assert without_secrets(remote) == kept


def test_changes_of_secret_files_are_not_kept(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=tmp_path, check=True)

    git("init", "-q")
    git("remote", "add", "origin", f"https://host/a?private_token={SECRET}")
    secret = [".env", "deep/.env.local", "prod.env", "server.PEM", "my_secrets.yaml", "credentials.json", ".netrc"]
    for name in [*secret, "train.py"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n")
    git("add", "-A")
    git("commit", "-qm", "a")
    for name in [*secret, "train.py"]:
        (tmp_path / name).write_text("lr = 3\n" if name == "train.py" else f"KEY={SECRET}\n")
    recorded = code(tmp_path)
    assert "+lr = 3" in recorded["uncommitted_diff"] and recorded["commit"]
    assert SECRET not in json.dumps(recorded)


def test_python_is_never_started_on_the_current_folder() -> None:
    """Without -P, `python -m` imports from where the user happens to be."""
    package = Path(research.__file__).parent
    starts = [
        (path.name, line)
        for path in package.rglob("*.py")
        for line in re.findall(r"sys\.executable,[^\n]*", path.read_text(encoding="utf-8"))
    ]
    assert len(starts) >= 3
    assert [start for start in starts if '"-P"' not in start[1]] == []


@pytest.mark.slow
@pytest.mark.process
def test_sync_does_not_run_what_is_named_wandb_here(tmp_path: Path) -> None:
    (tmp_path / "wandb.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    script = f"""
from pathlib import Path
from research.config.schema import Config
from research.tracking.run import Run
from research.tracking.sync import sync
from research.tracking.wandb import Tracker
config = Config(task="classification", run_dir={str(tmp_path / "run")!r})
config.model.name = "tiny"
run = Run.open(config)
Tracker(run, config).finish({{}}, {{}}, None)
run.close()
print(sync([run.path], timeout_seconds=30, attempts=1, workers=1))
"""
    environment = {**os.environ, "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
    environment["PYTHONPATH"] = str(Path(research.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
    )
    assert "failed" in done.stdout, done.stderr
    assert not (tmp_path / "executed").exists()
