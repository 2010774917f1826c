"""From a request's body to a response: JSON that is read with care, and each failure as a status with a reason."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable
from itertools import accumulate
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from research.deploy.engine import Busy, Late
from research.deploy.guard import TooLarge
from research.deploy.service import Service
from research.inference.predictor import BadInput

log = logging.getLogger("research.serve")
DEEPEST = 50  # levels of a request's JSON
Answer = TypeVar("Answer")


class UnknownRun(Exception):
    """No run of this name is served."""


def read_json(body: bytes) -> Any:
    """The body's JSON. Raises BadInput for what is none, and for deep nesting."""
    try:
        text = body.decode("utf-8")
        if max_depth(text) > DEEPEST:
            raise BadInput(f"the JSON is nested deeper than {DEEPEST} levels")
        return json.loads(text)
    except UnicodeDecodeError:
        raise BadInput("the body is not UTF-8") from None
    except ValueError as error:
        raise BadInput(f"the body is not JSON: {error}") from None


def max_depth(text: str) -> int:
    """Levels of brackets, those in strings too: more than there are, never fewer."""
    return max(accumulate((1 if bracket in "[{" else -1 for bracket in re.findall(r"[][{}]", text)), initial=0))


async def answered(
    service: Service, run: str | None, request: Request, work: Callable[[Any], Awaitable[dict[str, Any] | Response]]
) -> Response:
    """What `work` makes of the body's JSON, or its failure as a status with a reason; given up when the client is gone.

    `run`: None where the body names it as its `model`.
    """
    began, seconds = time.perf_counter(), service.limits.timeout_seconds
    body: bytes | None = None
    response: Response
    try:
        async with asyncio.timeout(seconds):  # one that comes drop by drop would hold its place without end
            body = await request.body()
            content = read_json(body)
            run = model_of(content) if run is None else run
            if run not in service.runs:
                raise UnknownRun
            answer = await unless_gone(request, work(content))
        response = answer if isinstance(answer, Response) else JSONResponse(answer)
    except UnknownRun:
        response = unknown_run(service, str(run))
    except BadInput as error:
        response = failure(422, str(error))
    except TimeoutError:
        late = failed(service, str(run), Late())
        response = failure(*late if body is not None else (408, f"the body did not come within {seconds:g} s"))
    except TooLarge as error:
        response = failure(413, str(error))
    except Busy:
        response = failure(503, "too many tokens wait; try again", {"retry-after": "1"})
    except (asyncio.CancelledError, ClientDisconnect):
        response = failure(499, "the client is gone")
    except Exception as error:
        status, reason = failed(service, str(run), error)
        response = failure(status, reason)
    known = run if run in service.runs else "unknown"
    service.monitor.requests.labels(known, response.status_code).inc()
    if known == run:
        service.monitor.seconds.labels(run).observe(time.perf_counter() - began)
    return response


def failed(service: Service, run: str, error: Exception) -> tuple[int, str]:
    """The status and the reason of an answer that could not be computed; counted and logged."""
    if isinstance(error, Late):
        return 504, f"no answer within {service.limits.timeout_seconds:g} s"
    is_number = isinstance(error, FloatingPointError)
    service.monitor.failures.labels(run, "not a number" if is_number else type(error).__name__).inc()
    if is_number:
        return 500, str(error)
    log.error("%s: %s", run, type(error).__name__)  # its message may hold the text
    return 500, f"the answer could not be computed ({type(error).__name__})"


def model_of(content: Any) -> str:
    """The run that a body names."""
    if not isinstance(content, dict) or not isinstance(content.get("model"), str):
        raise BadInput('give {"model": "...", ...}, the name of a run')
    return str(content["model"])


async def unless_gone(request: Request, work: Awaitable[Answer]) -> Answer:
    """The result of `work`, which is cancelled when the client goes; the request's body has been read."""
    this, gone = asyncio.current_task(), asyncio.ensure_future(request.receive())
    assert this is not None

    def give_up(gone: asyncio.Future[Any]) -> None:
        if not gone.cancelled():
            this.cancel()

    gone.add_done_callback(give_up)
    try:
        return await work
    finally:
        gone.cancel()


def failure(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": reason}, status, headers=headers)


def unknown_run(service: Service, run: str) -> JSONResponse:
    return failure(404, f"no run '{run[:100]}' is served here; there is {', '.join(service.runs)}")
