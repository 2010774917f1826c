"""`research serve` beside FastAPI and LitServe with a `transformers` pipeline: requests per processor second of each.

All serve one finished run (sentiment, NER or QA) on one thread, in turn, under the same bounded load: clients that send
one row a request and wait for its answer. A processor second of the server is what is compared, so that other jobs on
the machine do not decide; the ratio of each round is shown with its spread. LitServe takes part where it is installed.

    python benchmarks/serve.py runs/sst2/seed0 --texts data/sst2/test.jsonl --clients 1 8 64
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from research.data.lines import BY_NAME
from research.data.source import open_file
from research.tracking.run import Run

PEER = Path(__file__).parent / "serve_peer.py"
FIELDS = {"sentiment": ["text"], "ner": ["tokens"], "qa": ["question", "context"]}


@dataclass
class Server:
    """A serving process, and of each round its requests per processor second and its 99th percentile."""

    process: psutil.Popen
    port: int
    rates: list[float] = field(default_factory=list)
    slowest: list[float] = field(default_factory=list)

    def processor_seconds(self) -> float:
        """Of the process and those it has started."""
        return sum(sum(each.cpu_times()[:2]) for each in (self.process, *self.process.children(recursive=True)))

    def end(self) -> None:
        for each in (*self.process.children(recursive=True), self.process):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--texts", type=Path, required=True, help="rows of the task, in any format that training reads")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--requests", type=int, default=600, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    options = parser.parse_args()
    config = Run.read(options.run).config
    rows = open_file("texts", str(options.texts), BY_NAME).rows.select_columns(FIELDS[config.task.name]).to_list()
    bodies = [json.dumps({"inputs": [row]}).encode() for row in rows]
    servers: dict[str, Server] = {}
    try:
        for peer in ["fastapi", *(["litserve"] if importlib.util.find_spec("litserve") else [])]:
            about = [config.task.name, str(config.data.max_length)]
            servers[peer] = start([str(PEER), peer, str(options.run / "model")], about, "/health")
        for precision in options.precision:
            command = ["-m", "research.cli", "serve", f"run={options.run}", "--no-keys", "--timeout-seconds", "300"]
            servers[precision] = start([*command, "--precision", precision, "--port"], [], "/ready")
        for clients in options.clients:
            compare(servers, bodies, clients, options.requests, options.rounds)
    finally:
        for server in servers.values():
            server.end()


def start(command: list[str], more: list[str], health: str) -> Server:
    """A server that has become ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = psutil.Popen([sys.executable, *command, str(port), *more], env=environment, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}{health}").status_code == 200:
                return Server(process, port)
        except httpx.HTTPError:
            time.sleep(0.2)
    raise SystemExit(f"{' '.join(command)} ended before it was ready")


def compare(servers: dict[str, Server], bodies: list[bytes], clients: int, requests: int, rounds: int) -> None:
    """Rounds of the same requests to each server in turn, after one that warms them."""
    for server in servers.values():
        server.rates, server.slowest = [], []
    for number in range(rounds + 1):
        asked = [bodies[(number * requests + i) % len(bodies)] for i in range(requests)]
        for server in servers.values():
            before = server.processor_seconds()
            seconds = asyncio.run(load(server.port, asked, clients))
            used = server.processor_seconds() - before
            if number:
                server.rates.append(requests / used)
                server.slowest.append(sorted(seconds)[int(0.99 * len(seconds))])
    for name, server in servers.items():
        ratios = [
            f"{statistics.median(each):5.2f} x {peer} ({min(each):.2f}-{max(each):.2f})"
            for peer in ("fastapi", "litserve")
            if peer in servers
            for each in [[own / theirs for own, theirs in zip(server.rates, servers[peer].rates, strict=True)]]
        ]
        print(
            f"{clients:3} clients  {name:9} {statistics.median(server.rates):7.1f} requests/CPU-s  "
            f"{'  '.join(ratios)}  p99 {statistics.median(server.slowest):.3f} s wall",
            flush=True,
        )


async def load(port: int, bodies: list[bytes], clients: int) -> list[float]:
    """Ask for each body's answer, so many at a time; the seconds that each took. Raises for an answer that is none.

    Plain HTTP over sockets: a client library's own processor time would decide how many requests wait.
    """
    queue, seconds = list(reversed(bodies)), list[float]()

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while queue:
            body, began = queue.pop(), time.perf_counter()
            head = f"POST /v1/predict/run HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if answer.split()[1] != "200":
                raise SystemExit(f"port {port} answers {answer.splitlines()[0]}")
            await reader.readexactly(int(answer.split("content-length: ")[1].split("\r\n")[0]))
            seconds.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*[one() for _ in range(clients)])
    return seconds


if __name__ == "__main__":
    main()
