"""The shipped configurations of haproxy, Prometheus and Grafana, by the programs that read them."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import yaml

from research.deploy.app import make_app
from research.deploy.service import Service
from research.tracking.run import Run
from tests.deploy.conftest import listening
from tests.slurm_cluster import free_port

pytestmark = [pytest.mark.slow, pytest.mark.service]
ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "deploy"


def program(name: str) -> str:
    """The path of a program; a test without it is skipped, but fails where CI_REQUIRES_HAPROXY=1 is set."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        assert os.environ.get("CI_REQUIRES_HAPROXY") != "1", f"{name} is missing"
        pytest.skip(f"needs {name}: scripts/system_packages.sh")
    return found


def test_alerts_and_their_series(tmp_path: Path) -> None:
    promtool = program("promtool")
    done = subprocess.run([promtool, "test", "rules", SITE / "alerts_test.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    alerts = yaml.safe_load((SITE / "alerts.yaml").read_text())["groups"][0]["rules"]
    tested = {rule["alertname"] for test in yaml.safe_load((SITE / "alerts_test.yaml").read_text())["tests"]
              for rule in test["alert_rule_test"]}  # fmt: skip
    assert tested == {rule["alert"] for rule in alerts}
    done = subprocess.run([promtool, "check", "config", SITE / "prometheus.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    panels = json.loads((SITE / "grafana.json").read_text())["panels"]
    shown = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = [{"record": f"panel:{i}", "expr": expression} for i, expression in enumerate(shown)]
    (tmp_path / "panels.yaml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", tmp_path / "panels.yaml"], capture_output=True, text=True)
    assert done.returncode == 0 and f"{len(shown)} rules found" in done.stdout, done.stdout + done.stderr
    assert all('run=~"$run"' in expression for expression in shown)
    for panel in panels:  # each line is named by what its series differ in
        for target in panel["targets"]:
            (labels,) = re.findall(r"sum by \(([\w, ]+)\)|min by \(([\w, ]+)\)", target["expr"])[:1]
            told = {*"".join(labels).split(", ")} - {"le"}
            assert {*re.findall(r"{{(\w+)}}", target["legendFormat"])} == told, panel["title"]


def test_every_metric_that_is_watched_is_exposed(served_runs: dict[str, Run]) -> None:
    from research.deploy.monitoring import Monitor

    reported = {family.name for family in Monitor().registry.collect()}
    for file in ("alerts.yaml", "grafana.json"):
        for name in re.findall(r"research_\w+", (SITE / file).read_text()):
            assert re.sub(r"_(total|bucket|sum|count)$", "", name) in reported, f"{file}: {name}"


@contextmanager
def proxy(folder: Path, port_of_worker: int) -> Iterator[int]:
    """haproxy in front of a worker, at a free port."""
    port = free_port()
    worker = str(port_of_worker)
    names = {"BIND": f"127.0.0.1:{port}", "WORKER1": worker, "WORKER2": worker}
    with open(folder / "haproxy.log", "w") as log:
        process = subprocess.Popen(
            [program("haproxy"), "-db", "-f", SITE / "haproxy.cfg"], env={**os.environ, **names}, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 100
        while status_of(f"http://127.0.0.1:{port}/ready") != 200:
            assert time.monotonic() < deadline, (folder / "haproxy.log").read_text()
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


def status_of(url: str) -> int:
    try:
        return httpx.get(url, timeout=60).status_code
    except httpx.HTTPError:
        return 0


def test_requests_that_come_drop_by_drop_are_cut_while_others_are_served(
    served_runs: dict[str, Run], tmp_path: Path
) -> None:
    """By the 10 s of haproxy.cfg; the worker sees none of them."""
    program("haproxy")
    service = Service({"run": served_runs["sentiment"].path})
    head = b"POST /v1/predict/run HTTP/1.1\r\nHost: here\r\n"
    with listening(make_app(service, None)) as worker, proxy(tmp_path, worker) as port:
        slow = [socket.create_connection(("127.0.0.1", port), 100) for _ in range(80)]
        for i, client in enumerate(slow):
            client.sendall(head + (b"X-Slow: " if i % 2 else b"Content-Length: 100\r\n\r\n{"))
        url, body = f"http://127.0.0.1:{port}/v1/predict/run", {"inputs": [{"text": "good film"}]}
        asked, waiting = 0, slow
        while waiting:
            assert httpx.post(url, json=body, timeout=100).status_code == 200
            asked += 1
            for client in waiting:
                with suppress(OSError):
                    client.sendall(b"a")
            told = select.select(waiting, [], [], 1)[0]
            waiting = [client for client in waiting if client not in told]
        assert {client.recv(100).split(b"\r\n")[0] for client in slow} <= {b"HTTP/1.1 408 Request Time-out", b""}
        for client in slow:
            client.close()
        assert asked >= 3 and f'requests_total{{code="200",run="run"}} {asked}.0' in service.monitor.text().decode()
        assert 'requests_total{code="408"' not in service.monitor.text().decode()
        assert status_of(f"http://127.0.0.1:{port}/metrics") == 404
    service.close()


def test_load_with_kills_reloads_and_bad_requests_is_answered_right(served_runs: dict[str, Run]) -> None:
    """The short form of `benchmarks/load.py --minutes 10`; of the memory ten minutes tell, not these seconds."""
    program("haproxy")
    run = served_runs["sentiment"]
    options = ["--minutes", "0.25", "--clients", "4", "--disturb-every", "3", "--drops", "8", "--growth", "9"]
    script, texts = str(ROOT / "benchmarks" / "load.py"), str(run.config.data.test)
    command = [sys.executable, script, str(run.path), "--texts", texts, *options]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert re.search(r"[1-9]\d* workers killed", done.stdout) and "0 answers wrong or lost" in done.stdout
