"""A sweep over a tiny experiment, and a PostgreSQL server of the machine's own packages on loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MakeSweep = Callable[..., Path]


@pytest.fixture
def make_sweep(tmp_path: Path, experiments: dict[str, Path]) -> MakeSweep:
    """Write a sweep of ten-step runs into the test's folder; keyword arguments replace top-level keys."""

    def make(task: str = "sentiment", name: str = "tiny", **keys: Any) -> Path:
        content: dict[str, Any] = {
            "experiment": str(experiments[task]),
            "folder": str(tmp_path / name),
            "settings": {"optim": {"epochs": 1}, "trainer": {"evaluate_every_steps": 3}},
            "space": {
                "optim.lr": {"low": 1e-4, "high": 1e-2, "log": True},
                "optim.warmup_ratio": {"low": 0.0, "high": 0.3},
            },
            "sampler": {"name": "random", "seed": 7},
            "budget": {"trials": 3},
            "storage": {"heartbeat_seconds": 0.2, "dead_after_seconds": 2.0, "lock_seconds": 3, "wait_seconds": 20},
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps({**content, **keys}), encoding="utf-8")
        return path

    return make


class Postgres:
    """A server that can be stopped and started; each test has a database of its own."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries, self.folder = binaries, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", folder / "data", "-U", "research", "--auth=trust", "-N")
        self.start()

    def _run(self, program: str, *arguments: Any) -> None:
        command = [str(self.binaries / program), *map(str, arguments)]
        if os.getuid() == 0:  # the server refuses to run as root
            command = ["runuser", "-u", "postgres", "--", *command]
        done = subprocess.run(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder} -F -c max_connections=60"
        self._run("pg_ctl", "-D", self.folder / "data", "-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self.folder / "data", "-w", "-m", "immediate", "stop")

    def new_database(self, name: str) -> str:
        """The URL of an empty database."""
        self._run("createdb", "-h", "127.0.0.1", "-p", self.port, "-U", "research", name)
        return f"postgresql://research@127.0.0.1:{self.port}/{name}"


def postgres_binaries() -> Path | None:
    """Where Debian's packages, or the path, have the server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    where = str(found[-1]) if found else shutil.which("initdb")
    return Path(where).parent if where else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    required = os.environ.get("CI_REQUIRES_POSTGRES") == "1"
    binaries = postgres_binaries()
    if binaries is None:
        assert not required, "CI_REQUIRES_POSTGRES=1, but there is no PostgreSQL server"
        pytest.skip("needs Debian's package postgresql")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
    server = Postgres(binaries, folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
