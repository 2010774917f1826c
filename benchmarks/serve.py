"""`research serve` beside FastAPI with a `transformers` pipeline: requests per processor second of the server.

Both serve one finished run on one thread, in turn, under the same bounded load: clients that send one text a request
and wait for its answer. A processor second of the server is what is compared, so that other jobs on the machine do not
decide; the ratio of each round is shown with its spread.

    python benchmarks/serve.py runs/sst2/seed0 --texts data/sst2/test.jsonl --clients 1 8 64
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

PEER = """
import sys, torch
torch.set_num_threads(1)
import uvicorn
from fastapi import FastAPI, Request
from transformers import pipeline
from starlette.concurrency import run_in_threadpool
ask = pipeline("text-classification", model=sys.argv[1], truncation=True, max_length=int(sys.argv[3]), top_k=None)
app = FastAPI()

@app.get("/ready")
async def ready():
    return {}

@app.post("/v1/predict/run")
async def predict(request: Request):
    rows = (await request.json())["inputs"]
    return {"predictions": await run_in_threadpool(ask, [row["text"] for row in rows])}

uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--texts", type=Path, required=True, help="JSONL with a column text")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--requests", type=int, default=600, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    options = parser.parse_args()
    texts = [json.loads(line)["text"] for line in options.texts.read_text().splitlines()]
    limit = json.loads((options.run / "model" / "tokenizer_config.json").read_text()).get("model_max_length", 128)
    limit = min(int(limit), 128)
    servers = {"pipeline": start(["-c", PEER, str(options.run / "model")], [str(limit)])}
    for precision in options.precision:
        command = ["-m", "research.cli", "serve", f"run={options.run}", "--no-keys", "--precision", precision, "--port"]
        servers[precision] = start(command, [])
    try:
        for clients in options.clients:
            compare(servers, texts, clients, options.requests, options.rounds)
    finally:
        for process, _ in servers.values():
            process.kill()


def start(command: list[str], more: list[str]) -> tuple[psutil.Popen, int]:
    """A server that has become ready, and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = psutil.Popen([sys.executable, *command, str(port), *more], env=environment, stderr=subprocess.DEVNULL)
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200:
                return process, port
        except httpx.HTTPError:
            time.sleep(0.2)


def compare(
    servers: dict[str, tuple[psutil.Popen, int]], texts: list[str], clients: int, requests: int, rounds: int
) -> None:
    """Rounds of the same requests to each server in turn, after one that warms them."""
    rates: dict[str, list[float]] = {name: [] for name in servers}
    slowest: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(rounds + 1):
        for name, (process, port) in servers.items():
            asked = [texts[(number * requests + i) % len(texts)] for i in range(requests)]
            before = sum(process.cpu_times()[:2])
            seconds = asyncio.run(load(port, asked, clients))
            used = sum(process.cpu_times()[:2]) - before
            if number:
                rates[name].append(requests / used)
                slowest[name].append(sorted(seconds)[int(0.99 * len(seconds))])
    for name in servers:
        ratios = [own / peer for own, peer in zip(rates[name], rates["pipeline"], strict=True)]
        print(
            f"{clients:3} clients  {name:9} {statistics.median(rates[name]):7.1f} requests/CPU-s  "
            f"{statistics.median(ratios):5.2f} x ({min(ratios):.2f}-{max(ratios):.2f})  "
            f"p99 {statistics.median(slowest[name]):.3f} s wall",
            flush=True,
        )


async def load(port: int, texts: list[str], clients: int) -> list[float]:
    """Ask for each text, so many at a time; the seconds that each answer took. Raises for an answer that is none."""
    queue, seconds = list(reversed(texts)), list[float]()
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300, limits=limits) as client:

        async def one() -> None:
            while queue:
                text, began = queue.pop(), time.perf_counter()
                (await client.post("/v1/predict/run", json={"inputs": [{"text": text}]})).raise_for_status()
                seconds.append(time.perf_counter() - began)

        await asyncio.gather(*[one() for _ in range(clients)])
    return seconds


if __name__ == "__main__":
    main()
