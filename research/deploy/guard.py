"""Keeps strangers and floods out before a request's body is read: keys, rates, and the size of a body."""

from __future__ import annotations

import json
import logging
import math
import time
from typing import Any

from research.deploy.keys import Keys

log = logging.getLogger("research.serve")
OPEN = ("/", "/live", "/ready", "/metrics", "/openapi.json", "/v2/health/live", "/v2/health/ready")


HEADER_BYTES = 32_768  # of a request, all together


class TooLarge(Exception):
    """The body has more bytes than are taken; who reads it answers 413."""


class Guard:
    """An ASGI application in front of another: 401 without a key, 429 above its rate, 413 and 431 for too many bytes.

    What it logs of a request: the key's id, method, path, status and time; never its body.
    """

    def __init__(self, app: Any, keys: Keys | None, body_bytes: int) -> None:
        """`keys`: None lets everyone in."""
        self.app, self.keys, self.body_bytes = app, keys, body_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        began, status, client = time.perf_counter(), [0], "-"

        async def noting(message: Any) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        if sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER_BYTES:
            await refuse(noting, 431, f"the headers may have {HEADER_BYTES} bytes")
            self._log(scope, status[0], began, client)
            return
        if self.keys is not None and scope["path"] not in OPEN:
            key = self.keys.find(_token(headers))
            if key is None:
                await refuse(noting, 401, "give a key: Authorization: Bearer KEY", [(b"www-authenticate", b"Bearer")])
                self._log(scope, status[0], began, client)
                return
            client = key.id
            if wait_seconds := self.keys.take(key):
                after = str(math.ceil(wait_seconds)).encode()
                await refuse(noting, 429, "more requests than this key allows", [(b"retry-after", after)])
                self._log(scope, status[0], began, client)
                return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.body_bytes:
            await refuse(noting, 413, f"the body may have {self.body_bytes} bytes")
            self._log(scope, status[0], began, client)
            return
        read = [0]

        async def limited() -> Any:
            message = await receive()
            read[0] += len(message.get("body", b""))
            if read[0] > self.body_bytes:
                raise TooLarge(f"the body may have {self.body_bytes} bytes")
            return message

        await self.app(scope, limited, noting)
        self._log(scope, status[0], began, client)

    @staticmethod
    def _log(scope: Any, status: int, began: float, client: str) -> None:
        if scope["path"] in OPEN:  # health checks, every few seconds
            return
        milliseconds = 1000 * (time.perf_counter() - began)
        path = scope["path"].encode("unicode_escape").decode()[:200]
        log.info("%s %s %s %d %.1f ms", client, scope["method"], path, status, milliseconds)


def _token(headers: dict[bytes, bytes]) -> str:
    kind, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


async def refuse(send: Any, status: int, reason: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Answer with a reason in JSON."""
    body = json.dumps({"error": reason}).encode()
    about = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": about})
    await send({"type": "http.response.body", "body": body})
