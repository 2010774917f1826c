"""`research serve` as a process: its key, signals, and the page in a browser."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

import research
from research.cli import main
from research.deploy.export import export
from research.tracking.run import Run
from tests.browser import open_browser

pytestmark = [pytest.mark.slow, pytest.mark.process]
EXPORTED = (("sentiment", "onnx"), ("ner", "openvino"))


class Server:
    """A serving process that has become ready."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.keys, self.log = folder / "keys.json", folder / "serve.log"
        environment = {**os.environ, "PYTHONPATH": str(Path(research.__file__).parents[1])}
        command = [sys.executable, "-m", "research.cli", "serve", *arguments, "--port", str(self.port)]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [*command, "--keys", str(self.keys), "--timeout-seconds", "120"],
                stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder,
            )  # fmt: skip
        self.until(lambda: self.get("/ready").status_code == 200)
        found = re.search(r"shown this once: (\S+)", self.said)
        self.token = found.group(1) if found else ""

    @property
    def said(self) -> str:
        return self.log.read_text()

    def until(self, holds: Any) -> None:
        deadline = time.monotonic() + 200
        while True:
            try:
                if holds():
                    return
            except httpx.HTTPError:
                pass
            assert self.process.poll() is None and time.monotonic() < deadline, self.said
            time.sleep(0.1)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=60)

    def post(self, run: str, inputs: list[dict[str, Any]]) -> httpx.Response:
        return httpx.post(
            f"http://127.0.0.1:{self.port}/v1/predict/{run}",
            json={"inputs": inputs},
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=200,
        )

    def predict(self, texts: list[str], run: str = "good-run") -> int:
        return self.post(run, [{"text": text} for text in texts]).status_code


@pytest.fixture(scope="module")
def server(served_runs: dict[str, Run], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two runs, and exported folders of them."""
    folder = tmp_path_factory.mktemp("server")
    named = [f"good-run={served_runs['sentiment'].path}", f"ner={served_runs['ner'].path}"]
    for task, format in EXPORTED:
        export(served_runs[task], folder / format, format)
        named.append(str(folder / format))
    server = Server(folder, *named)
    yield server
    server.process.kill()
    server.process.wait()


@pytest.mark.service
def test_the_page_in_a_browser(server: Server) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    with open_browser() as driver:
        driver.set_window_size(400, 900)
        driver.get(f"http://127.0.0.1:{server.port}/")
        driver.find_element(By.ID, "key").send_keys(server.token)
        driver.find_element(By.TAG_NAME, "h1").click()
        WebDriverWait(driver, 60).until(lambda d: d.find_elements(By.ID, "field-text"))
        driver.find_element(By.ID, "field-text").send_keys("<b>good</b> film")
        driver.find_element(By.ID, "send").click()
        WebDriverWait(driver, 60).until(lambda d: d.find_elements(By.CLASS_NAME, "bar"))
        rows = [row.text for row in driver.find_elements(By.CLASS_NAME, "row")]
        assert len(rows) == 2 and all(re.search(r"(positive|negative)\s+[\d.]+ %", row) for row in rows)
        assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_floods_of_headers_are_refused_and_threads_are_few(server: Server) -> None:
    def first_line(request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", server.port), 200) as client:
            client.sendall(request)
            return client.recv(1000).split(b"\r\n")[0]

    start = b"GET /live HTTP/1.1\r\nHost: here\r\n"
    assert first_line(start + b"\r\n") == b"HTTP/1.1 200 OK"
    assert b" 4" in first_line(start + b"X-Long: " + b"a" * 100_000 + b"\r\n\r\n")
    assert b" 4" in first_line(start + b"".join(b"X-%d: a\r\n" % i for i in range(10_000)) + b"\r\n")
    assert b" 4" in first_line(b"\x16\x03\x01 no HTTP\r\n\r\n")
    assert server.predict(["good film"]) == 200 and "Traceback" not in server.said
    tasks = Path(f"/proc/{server.process.pid}/task")
    if tasks.is_dir():  # on Linux
        engines = 2 + len(EXPORTED)  # one computes for each run; `--threads 1` gives it no other
        of_runtimes = 1 + 1 + 2  # ONNX Runtime's own, OpenVINO's own, and of its model a stream and its callbacks
        assert len(list(tasks.iterdir())) <= engines + of_runtimes + 8  # whatever the number of processors


@pytest.mark.parametrize(("task", "format", "field"), [(*EXPORTED[0], "text"), (*EXPORTED[1], "tokens")])
def test_an_exported_folder_answers_with_the_predictions_that_were_scored(
    task: str, format: str, field: str, server: Server, served_runs: dict[str, Run]
) -> None:
    rows = pq.read_table(served_runs[task].predictions / "test.parquet").to_pylist()
    answers = server.post(format, [{field: row[field]} for row in rows]).json()["predictions"]
    assert [answer["prediction"] for answer in answers] == [row["prediction"] for row in rows] and len(rows) == 13
    for answer, row in zip(answers, rows, strict=True):
        if task == "ner":
            assert answer["confidence"] == pytest.approx(row["confidence"], abs=1e-5)
        else:
            assert [*answer["probabilities"].values()] == pytest.approx(row["probabilities"], abs=1e-5)


def test_signals_lose_no_request(server: Server) -> None:
    """Runs are loaded again, and then the process ends, under requests that are all answered."""
    assert server.token and server.token not in server.keys.read_text()
    with ThreadPoolExecutor(24) as clients:
        asked = [clients.submit(server.predict, ["good film " * 20] * 8) for _ in range(24)]
        server.process.send_signal(signal.SIGHUP)
        server.until(lambda: server.said.count("was loaded again") == 4)
        asked += [clients.submit(server.predict, ["good film " * 20] * 8) for _ in range(24)]
        assert [each.result() for each in asked] == [200] * 48
        asked = [clients.submit(server.predict, ["good film " * 20] * 64) for _ in range(24)]
        accepted = '_requests_total{code="200",run="good-run"} '
        before = float(server.get("/metrics").text.split(accepted)[1].split()[0])
        server.until(lambda: float(server.get("/metrics").text.split(accepted)[1].split()[0]) > before)
        server.process.send_signal(signal.SIGTERM)
        assert {each.result() for each in asked} == {200}
    assert server.process.wait(100) == 0, server.said
    assert "Traceback" not in server.said and "good film" not in server.said
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0


def test_what_cannot_be_served(served_runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, keys = str(served_runs["sentiment"].path), str(tmp_path / "keys.json")
    for runs, reason in (
        ([], "name the runs to serve"),
        ([str(tmp_path)], "is not a run folder"),
        ([f"a={run}", f"a={run}"], "two runs are named 'a'"),
        ([f"a/b={run}"], "'a/b' cannot be part of a URL"),
    ):
        assert main(["serve", *runs, "--keys", keys]) == 2
        assert reason in capsys.readouterr().err
    assert main(["serve", "--add-key", "desk", "--keys", keys]) == 0
    assert len(capsys.readouterr().out.strip()) == 43
    assert main(["serve", "--add-key", "desk", "--keys", keys]) == 2
    assert "there is a key named 'desk'" in capsys.readouterr().err
    Path(keys).write_text("{")
    assert main(["serve", run, "--keys", keys]) == 2
    assert "holds no keys" in capsys.readouterr().err
