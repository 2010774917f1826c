"""Servers of a SLURM array enter the proxy's workers when they are ready, and leave before they end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.cluster.conftest import ROOT, Project
from tests.deploy.test_site import program
from tests.slurm_cluster import free_port
from tests.small_runs import SmallRuns


@contextmanager
def proxied(folder: Path) -> Iterator[tuple[str, Path]]:
    """haproxy with the workers of `folder / servers`: its address, and what is told of who enters and leaves."""
    port, socket = free_port(), folder / "s"
    names = {"BIND": f"127.0.0.1:{port}", "SOCKET": str(socket)}
    haproxy = [program("haproxy"), "-db", "-f", str(ROOT / "docs" / "deploy" / "haproxy.cfg")]
    with open(folder / "haproxy.log", "w") as log, open(folder / "entries.log", "w") as entries:
        first = subprocess.Popen(haproxy, env={**os.environ, **names}, stdout=log, stderr=log)
        command = (
            f"until [ -S {socket} ]; do sleep 0.1; done; exec {sys.executable} SLURM/serve_proxy.py servers {socket}"
        )
        second = subprocess.Popen(["sh", "-c", command], cwd=folder, stdout=entries, stderr=entries)
    try:
        yield f"http://127.0.0.1:{port}", folder / "entries.log"
    finally:
        for process in (first, second):
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.service
def test_servers_of_an_array_enter_and_leave(project: Project, small_runs: SmallRuns) -> None:
    run = small_runs.train("sentiment")
    options = ("--array=0-1", "--output=serve-%a.log", "SLURM/serve.sbatch", f"good={run.path}", "--no-keys")
    with proxied(project.folder) as (url, log):
        job = project.sbatch(*options, RESEARCH_ADDRESS="127.0.0.1")
        job.until(lambda: log.read_text().count("has entered") == 2)
        body = {"inputs": [{"text": "good film"}]}

        def status() -> int:
            return httpx.post(f"{url}/v1/predict/good", json=body, timeout=100).status_code

        job.until(lambda: status() == 200)
        project.cluster.says("scancel", f"{job.id}_0")
        while log.read_text().count("has left") == 0:
            assert status() == 200
        assert [status() for _ in range(5)] == [200] * 5
        assert len(list((project.folder / "servers").iterdir())) == 1
        project.cluster.says("scancel", job.id)
        job.wait()
        assert not list((project.folder / "servers").iterdir())
        while log.read_text().count("has left") < 2:  # it looks each second
            time.sleep(0.1)
