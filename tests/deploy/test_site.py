"""The shipped configurations of haproxy, Prometheus and Grafana, by the programs that read them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from research.tracking.run import Run
from tests.deploy.test_process import Server

pytestmark = [pytest.mark.slow, pytest.mark.service]
SITE = Path(__file__).parents[2] / "docs" / "deploy"


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
    panels = json.loads((SITE / "grafana.json").read_text())["panels"]
    shown = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = [{"record": f"panel:{i}", "expr": expression} for i, expression in enumerate(shown)]
    (tmp_path / "panels.yaml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", tmp_path / "panels.yaml"], capture_output=True, text=True)
    assert done.returncode == 0 and f"{len(shown)} rules found" in done.stdout, done.stdout + done.stderr


def test_every_metric_that_is_watched_is_exposed(served_runs: dict[str, Run]) -> None:
    import re

    from research.deploy.monitoring import Monitor

    reported = {family.name for family in Monitor().registry.collect()}
    for file in ("alerts.yaml", "grafana.json"):
        for name in re.findall(r"research_\w+", (SITE / file).read_text()):
            assert re.sub(r"_(total|bucket|sum|count)$", "", name) in reported, f"{file}: {name}"


@contextmanager
def proxy(folder: Path, workers: list[Server]) -> Iterator[int]:
    """haproxy in front of two workers, at a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = {"BIND": f"127.0.0.1:{port}", "WORKER1": str(workers[0].port), "WORKER2": str(workers[1].port)}
    with open(folder / "haproxy.log", "w") as log:
        process = subprocess.Popen(
            [program("haproxy"), "-db", "-f", SITE / "haproxy.cfg"], env={**os.environ, **names}, stdout=log, stderr=log
        )
    try:
        workers[0].until(lambda: httpx.get(f"http://127.0.0.1:{port}/ready", timeout=60).status_code == 200)
        yield port
    finally:
        process.kill()
        process.wait()


def test_a_worker_killed_under_load_loses_nothing(served_runs: dict[str, Run], tmp_path: Path) -> None:
    program("haproxy")
    path = served_runs["sentiment"].path
    workers = [Server(tmp_path, f"good-run={path}"), Server(tmp_path, f"good-run={path}")]
    token = workers[0].token
    try:
        with proxy(tmp_path, workers) as port:

            def ask(headers: dict[str, str]) -> int:
                return httpx.post(
                    f"http://127.0.0.1:{port}/v1/predict/good-run", headers=headers, timeout=200,
                    json={"inputs": [{"text": "good film " * 20}] * 8},
                ).status_code  # fmt: skip

            keyed = {"Authorization": f"Bearer {token}"}
            with ThreadPoolExecutor(16) as clients:
                asked = [clients.submit(ask, keyed) for _ in range(60)]
                assert asked[5].result() == 200
                workers[0].process.send_signal(signal.SIGKILL)
                asked += [clients.submit(ask, keyed) for _ in range(60)]
                assert [each.result() for each in asked] == [200] * 120
            assert ask({}) == 401
            assert httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).status_code == 404
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()
