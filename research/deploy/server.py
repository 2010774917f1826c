"""Run the service: uvicorn, signals, and the key that the first start makes."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from research.deploy.app import make_app
from research.deploy.keys import Keys, add_key, read_keys
from research.deploy.service import Limits, Service

log = logging.getLogger("research.serve")


def serve(
    runs: Mapping[str, Path],
    *,
    host: str,
    port: int,
    keys_file: Path | None,
    precision: str | None = None,
    limits: Limits | None = None,
) -> int:
    """Serve runs until SIGTERM or SIGINT, then answer what was accepted; SIGHUP loads the runs again.

    `runs`: folders by their names in URLs. `keys_file`: None lets everyone in. Raises UserError for runs that cannot be
    served.
    """
    logging.getLogger("research.serve").setLevel(logging.INFO)
    service = Service(runs, precision, limits)
    keys = None if keys_file is None else Keys(keys_at(keys_file))
    config = uvicorn.Config(
        make_app(service, keys), host=host, port=port, log_level="warning", access_log=False, workers=1,
        timeout_keep_alive=75, timeout_graceful_shutdown=30, h11_max_incomplete_event_size=32_768,
        proxy_headers=False, server_header=False,
    )  # fmt: skip
    signal.signal(signal.SIGHUP, lambda number, frame: threading.Thread(target=service.reload, daemon=True).start())
    served = ", ".join(f"{name} ({service.runs[name].predictor.config.task.name})" for name in runs)
    log.info("serving %s at http://%s:%d", served, host, port)
    server = OrderlyServer(config)
    server.run()
    return 0 if server.started else 1


class OrderlyServer(uvicorn.Server):
    """Ends with code 0 at a signal; uvicorn would raise the signal again after the orderly end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield


def keys_at(path: Path) -> list[Any]:
    """The keys of a file; where there is none yet, one is made and shown, once."""
    keys = read_keys(path)
    if not keys:
        token = add_key(path, "first")
        print(f"The first key, shown this once: {token}\nIts hash is kept in {path}.", file=sys.stderr)
        keys = read_keys(path)
    return keys
