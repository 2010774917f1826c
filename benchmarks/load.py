"""Two workers behind haproxy under mixed load, bad requests, hostile clients, killed workers and reloads.

    python benchmarks/load.py runs/quickstart/sentiment/seed0 --texts research/quickstart/sentiment/test.jsonl

Clients send one text, eight texts and long texts, and one request in a hundred is bad in one of six ways. Meanwhile the
second worker is killed without warning and started again, both load the run again, and connections that send their
header or body drop by drop are held open. Every answer is compared with that of the run to the text alone. Ends with 1
where one is wrong or lost, where a drop-by-drop connection outlives its time, or where the memory of the first worker
grows: its mean over the last third of the time against the third before it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

CONFIG = Path(__file__).parents[1] / "docs" / "deploy" / "haproxy.cfg"
BAD: list[tuple[int, str, bytes]] = [  # the status that is due, the run, the body
    (422, "run", b'{"inputs": [{"text": '),
    (422, "run", b'{"inputs": [{"txt": "good"}]}'),
    (422, "run", b'{"inputs": [{"text": ["good"]}]}'),
    (422, "run", b'{"inputs": [{"text": "\xff"}]}'),
    (404, "other", b'{"inputs": [{"text": "good"}]}'),
    (413, "run", b'{"inputs": [{"text": "' + b"a" * 1_100_000 + b'"}]}'),
]
CLOSE = 1e-4  # probabilities of the same text in another row, fp32


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Worker:
    """A serving process that can be killed and started again at its port."""

    def __init__(self, run: str, log: Path) -> None:
        self.run, self.log, self.port = run, log, free_port()
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "research.cli", "serve", f"run={self.run}", "--no-keys", "--precision", "fp32"]
        with open(self.log, "a") as log:
            self.process = psutil.Popen(
                [*command, "--port", str(self.port), "--timeout-seconds", "120"], stdout=log, stderr=log
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def ready(self, client: httpx.AsyncClient) -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if (await client.get(f"http://127.0.0.1:{self.port}/ready")).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.2)
        raise SystemExit(f"a worker does not become ready: {self.log.read_text()[-2000:]}")


@dataclass
class Tally:
    """What came of the requests."""

    codes: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(
        default_factory=list
    )  # answers that are not those of the run, and statuses that are not due
    kills: int = 0
    reloads: int = 0
    resident: list[tuple[float, int]] = field(default_factory=list)  # seconds from the start, bytes of the first worker
    drops: list[str] = field(default_factory=list)  # what became of connections that send drop by drop


def expected_of(run: str, texts: list[str]) -> list[dict[str, Any]]:
    """The run's own answer to each text alone."""
    from research.inference.predictor import Predictor, trained_of
    from research.tracking.run import Run

    predictor = Predictor(trained_of(Run.read(run)), "fp32")
    return [predictor.answer([predictor.question({"text": text})])[0] for text in texts]


async def clients(port: int, known: dict[str, dict[str, Any]], count: int, end: float, tally: Tally) -> None:
    """Clients that ask one thing after the other until the end."""
    texts = list(known)
    limits = httpx.Limits(max_connections=count, max_keepalive_connections=count)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300, limits=limits) as client:

        async def one(draw: random.Random) -> None:
            while time.monotonic() < end:
                if draw.random() < 0.01:
                    due, run, body = draw.choice(BAD)
                    code = (await client.post(f"/v1/predict/{run}", content=body)).status_code
                    tally.codes[code] += 1
                    tally.wrong += [] if code == due else [f"{code} in place of {due}"]
                else:
                    some = draw.sample(texts, draw.choice([1, 1, 1, 8]))
                    answer = await client.post("/v1/predict/run", json={"inputs": [{"text": text} for text in some]})
                    tally.codes[answer.status_code] += 1
                    if answer.status_code == 503:  # it said so: not accepted
                        await asyncio.sleep(float(answer.headers.get("retry-after", 1)))
                    elif answer.status_code != 200:
                        tally.wrong.append(f"{answer.status_code} {answer.text[:100]}")
                    else:
                        given = answer.json()["predictions"]
                        tally.wrong += [t for t, a in zip(some, given, strict=True) if not same(a, known[t])]

        await asyncio.gather(*[one(random.Random(i)) for i in range(count)])


def same(answer: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Is an answer that of the run? A tie of two labels may fall either way."""
    pairs = [(answer["probabilities"][label], p) for label, p in expected["probabilities"].items()]
    label = answer["prediction"]
    best = max(expected["probabilities"].values())
    return all(math.isclose(a, b, abs_tol=CLOSE) for a, b in pairs) and (
        label == expected["prediction"] or best - expected["probabilities"][label] < CLOSE
    )


async def disturb(workers: list[Worker], end: float, every_seconds: float, tally: Tally) -> None:
    """Kill the second worker and start it again, then let both load the run again, in turn until the end."""
    async with httpx.AsyncClient() as client:
        while time.monotonic() + every_seconds < end:
            await asyncio.sleep(every_seconds)
            workers[1].kill()
            tally.kills += 1
            workers[1].start()
            await workers[1].ready(client)
            for worker in workers:
                worker.process.send_signal(signal.SIGHUP)
            tally.reloads += 2


async def watch(worker: Worker, end: float, tally: Tally) -> None:
    began = time.monotonic()
    while time.monotonic() < end:
        tally.resident.append((time.monotonic() - began, worker.process.memory_info().rss))
        await asyncio.sleep(0.5)


async def drip(port: int, start: bytes, tally: Tally) -> None:
    """A connection that sends a beginning and then a byte a second, for 30 seconds at most."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(start)
    said, began = asyncio.ensure_future(reader.read(100)), time.monotonic()
    while not said.done() and time.monotonic() < began + 30:
        writer.write(b"a")
        await asyncio.wait({said}, timeout=1)
    if said.done() and not said.exception():
        first = said.result().split(b"\r\n")[0].decode()
        tally.drops.append(first or "closed")
    else:
        tally.drops.append("closed" if said.done() else "held 30 s")
        said.cancel()
    writer.close()


async def load(options: argparse.Namespace, workers: list[Worker], known: dict[str, dict[str, Any]]) -> Tally:
    """Everything at once; returns what came of it."""
    tally, port = Tally(), free_port()
    async with httpx.AsyncClient() as client:
        await asyncio.gather(*[worker.ready(client) for worker in workers])
        names = {"BIND": f"127.0.0.1:{port}", "WORKER1": str(workers[0].port), "WORKER2": str(workers[1].port)}
        environment = {**os.environ, **names, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        proxy = subprocess.Popen(["haproxy", "-db", "-f", CONFIG], env=environment, stdout=subprocess.DEVNULL)
        try:
            await asyncio.sleep(2)  # its first health checks
            end = time.monotonic() + 60 * options.minutes
            head = b"POST /v1/predict/run HTTP/1.1\r\nHost: here\r\n"
            drops = [head + b"X-Slow: ", head + b"Content-Length: 1000\r\n\r\n{"]
            await asyncio.gather(
                clients(port, known, options.clients, end, tally),
                disturb(workers, end, options.disturb_every, tally),
                watch(workers[0], end, tally),
                *[drip(port, drops[i % 2], tally) for i in range(options.drops)],
            )
        finally:
            proxy.kill()
            proxy.wait()
    return tally


def growth_of(tally: Tally) -> float:
    """Mean memory of the last third of the time by that of the second, less 1."""
    whole = tally.resident[-1][0]
    thirds = [[size for at, size in tally.resident if int(3 * at / (whole + 1e-9)) == third] for third in (1, 2)]
    return statistics.mean(thirds[1]) / statistics.mean(thirds[0]) - 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", help="a finished run of one text and one label, such as sentiment")
    parser.add_argument("--texts", type=Path, required=True, help="JSONL with a column text")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--disturb-every", type=float, default=30, metavar="SECONDS", help="a kill and two reloads")
    parser.add_argument("--drops", type=int, default=200, help="connections that send drop by drop")
    parser.add_argument("--growth", type=float, default=0.05, help="of memory that is borne")
    options = parser.parse_args()
    texts = list(dict.fromkeys(json.loads(line)["text"] for line in options.texts.read_text().splitlines()))
    texts += [" ".join([text] * 30) for text in texts[:20]]  # long ones, which are cut
    log = Path(f"{options.run}.load.log")
    log.write_text("")
    workers = [Worker(options.run, log) for _ in range(2)]
    try:
        tally = asyncio.run(load(options, workers, dict(zip(texts, expected_of(options.run, texts), strict=True))))
    finally:
        for worker in workers:
            worker.kill()
    growth, held, codes = growth_of(tally), tally.drops.count("held 30 s"), dict(sorted(tally.codes.items()))
    print(f"{sum(codes.values())} requests in {options.minutes:g} minutes, by status: {codes}")
    print(f"{tally.kills} workers killed, {tally.reloads} reloads")
    print(f"{len(tally.wrong)} answers wrong or lost {tally.wrong[:3]}")
    print(f"{len(tally.drops)} connections drop by drop: {dict(Counter(tally.drops))}")
    print(f"memory of the first worker {tally.resident[-1][1] / 1e6:.0f} MB, {100 * growth:+.1f} % over the last third")
    return int(bool(tally.wrong) or held > 0 or growth > options.growth or b"Traceback" in log.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
