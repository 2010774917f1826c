"""Keep haproxy's workers those that have entered themselves in a folder, as the tasks of SLURM/serve.sbatch do.

    BIND=:8000 SOCKET=haproxy.sock haproxy -f docs/deploy/haproxy.cfg &
    python SLURM/serve_proxy.py servers haproxy.sock

haproxy runs where users reach it and the folder is shared; this needs Python alone. A worker that dies without leaving
fails haproxy's health check, and its entry may be removed by hand.
"""

from __future__ import annotations

import argparse
import re
import socket
import time
from pathlib import Path


class Proxy:
    """The workers of a running haproxy, which it keeps places for."""

    def __init__(self, path: str) -> None:
        self.path = path
        state = self.says("show servers state workers")
        self.free = re.findall(r"^\d+ workers \d+ (\S+) ", state, flags=re.MULTILINE)[::-1]
        self.places: dict[str, str] = {}  # "address port" -> the place of a worker
        for place in self.free:
            self.says(f"set server workers/{place} state maint")

    def says(self, command: str) -> str:
        """What haproxy answers to a command."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(self.path)
            client.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: client.recv(65536), b"")).decode()

    def use(self, workers: set[str]) -> None:
        """Have these workers, each an address and a port, and no others."""
        for worker in self.places.keys() - workers:
            place = self.places.pop(worker)
            self.says(f"set server workers/{place} state maint")
            self.free.append(place)
            print(f"{worker} has left", flush=True)
        for worker in sorted(workers - self.places.keys()):
            if not self.free:
                print(f"{worker}: haproxy keeps no further place", flush=True)
                return
            place, (address, port) = self.free.pop(), worker.split()
            self.says(f"set server workers/{place} addr {address} port {port}")
            self.says(f"set server workers/{place} state ready")
            self.places[worker] = place
            print(f"{worker} has entered", flush=True)


def entered(folder: Path) -> set[str]:
    """The address and port of each worker of a folder."""
    found = set()
    for path in folder.glob("*"):
        try:
            text = path.read_text().strip()
        except OSError:  # it has left in this moment
            continue
        if path.suffix != ".new" and re.fullmatch(r"[0-9a-f.:]+ \d+", text):
            found.add(text)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("servers", type=Path, help="folder with a file for each worker: its address and port")
    parser.add_argument("socket", help="haproxy's socket, as SOCKET names it")
    options = parser.parse_args()
    proxy = Proxy(options.socket)
    while True:
        proxy.use(entered(options.servers))
        time.sleep(1)


if __name__ == "__main__":
    main()
