"""The HTTP service: predictions as JSON, the Open Inference Protocol, health, metrics, and a page to try it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.requests import ClientDisconnect

from research.deploy.engine import Busy, Late
from research.deploy.guard import Guard, TooLarge
from research.deploy.inference_protocol import answer_tensors, rows_of_tensors
from research.deploy.keys import Keys
from research.deploy.service import Service
from research.inference.predictor import BadInput

log = logging.getLogger("research.serve")
PAGE = Path(__file__).parent / "page.html"
DEEPEST = 50  # levels of a request's JSON


def make_app(service: Service, keys: Keys | None) -> Any:
    """The ASGI application of a service; `keys`: None lets everyone in."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(title="research serve", docs_url=None, redoc_url=None, lifespan=lifespan)
    add_health(app, service)
    add_predictions(app, service)
    add_feedback(app, service)
    add_protocol(app, service)
    return Guard(app, keys, service.limits.body_bytes)


def add_health(app: FastAPI, service: Service) -> None:
    """Health, metrics and the page."""

    @app.get("/live")
    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/ready")
    @app.get("/v2/health/ready")
    async def ready() -> JSONResponse:
        good = service.is_ready and all(served.engine.is_alive for served in service.runs.values())
        return JSONResponse({"ready": good}, 200 if good else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        text = await asyncio.to_thread(service.monitor.text)  # tests of drift take a while
        return Response(text, media_type="text/plain; version=0.0.4")

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:
        return PAGE.read_text("utf-8")

    @app.get("/v1/runs")
    async def runs() -> dict[str, Any]:
        return {"runs": [about(service, name) for name in service.runs]}


def about(service: Service, name: str) -> dict[str, Any]:
    """What a client needs to know of a run."""
    predictor = service.runs[name].predictor
    return {
        "name": name,
        "task": predictor.config.task.name,
        "model": predictor.trained.base_model,
        "fields": predictor.fields,
        "required": predictor.required,
        "labels": predictor.data.labels,
        "max_length": predictor.config.data.max_length,
    }


def add_predictions(app: FastAPI, service: Service) -> None:
    """POST /v1/predict/{run}."""
    example = {"inputs": [{"text": "A film to remember."}]}
    body = {"required": True, "content": {"application/json": {
        "schema": {"type": "object", "required": ["inputs"], "properties": {"inputs": {
            "type": "array", "items": {"type": "object"}, "maxItems": service.limits.texts}}},
        "example": example}}}  # fmt: skip

    @app.post("/v1/predict/{run}", openapi_extra={"requestBody": body})
    async def predict(run: str, request: Request) -> JSONResponse:
        """Label rows; each holds the task's own fields."""

        async def work(body: bytes) -> dict[str, Any]:
            content = read_json(body)
            rows = content.get("inputs") if isinstance(content, dict) else None
            if not isinstance(rows, list) or not rows:
                raise BadInput('give {"inputs": [{"text": "..."}, ...]}, a list with one row at least')
            if len(rows) > service.limits.texts:
                raise BadInput(f"{len(rows)} inputs; at most {service.limits.texts} in one request")
            return {"predictions": await service.answer(run, rows)}

        return await answered(service, run, request, work)


def add_feedback(app: FastAPI, service: Service) -> None:
    """POST and GET /v1/feedback/{run}."""
    example = {"feedback": [{"id": "5f0c0a62d0c1b7aa", "gold": "positive"}]}
    body = {"required": True, "content": {"application/json": {
        "schema": {"type": "object", "required": ["feedback"], "properties": {"feedback": {
            "type": "array", "items": {"type": "object", "required": ["id", "gold"]}}}},
        "example": example}}}  # fmt: skip

    @app.post("/v1/feedback/{run}", openapi_extra={"requestBody": body})
    async def feedback(run: str, request: Request) -> JSONResponse:
        """Say what the right answers were; `id` is that of a prediction. No text is kept."""

        async def work(body: bytes) -> dict[str, Any]:
            content = read_json(body)
            entries = content.get("feedback") if isinstance(content, dict) else None
            if not isinstance(entries, list) or not 0 < len(entries) <= service.limits.texts:
                most = service.limits.texts
                raise BadInput(f'give {{"feedback": [{{"id": "...", "gold": "..."}}]}}, 1 to {most} of them')
            return {"counted": await asyncio.to_thread(service.take_feedback, run, entries)}

        return await answered(service, run, request, work)

    @app.get("/v1/feedback/{run}")
    async def scores(run: str) -> JSONResponse:
        """The scores of all feedback to the model that is served, with 95 % intervals over examples."""
        if run not in service.runs:
            return unknown_run(service, run)
        return JSONResponse(await asyncio.to_thread(service.runs[run].feedback.scores))


def add_protocol(app: FastAPI, service: Service) -> None:
    """The Open Inference Protocol, version 2, over the same engines: KServe, Triton and Seldon speak it."""

    @app.get("/v2/models/{run}")
    async def model(run: str) -> JSONResponse:
        if run not in service.runs:
            return unknown_run(service, run)
        predictor = service.runs[run].predictor
        tensors = [{"name": field, "datatype": "BYTES", "shape": [-1]} for field in predictor.required]
        outputs = [{"name": "prediction", "datatype": "BYTES", "shape": [-1]}]
        return JSONResponse({"name": run, "platform": "research", "inputs": tensors, "outputs": outputs})

    @app.get("/v2/models/{run}/ready")
    async def model_ready(run: str) -> JSONResponse:
        good = run in service.runs and service.is_ready
        return JSONResponse({"ready": good}, 200 if good else 503)

    @app.post("/v2/models/{run}/infer")
    async def infer(run: str, request: Request) -> JSONResponse:
        async def work(body: bytes) -> dict[str, Any]:
            content = read_json(body)
            rows = rows_of_tensors(content, service.limits.texts)
            answers = await service.answer(run, rows)
            outputs = answer_tensors(answers)
            return {"model_name": run, "outputs": outputs, **({"id": content["id"]} if "id" in content else {})}

        return await answered(service, run, request, work)


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
    depth = deepest = 0
    for character in text:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


async def answered(
    service: Service, run: str, request: Request, work: Callable[[bytes], Awaitable[dict[str, Any]]]
) -> JSONResponse:
    """The answer of `work`, or its failure as a status with a reason; given up when the client is gone."""
    began = time.perf_counter()
    if run not in service.runs:
        service.monitor.requests.labels("unknown", 404).inc()
        return unknown_run(service, run)
    try:
        response = JSONResponse(await unless_gone(request, work(await request.body())))
    except BadInput as error:
        response = failure(422, str(error))
    except TooLarge as error:
        response = failure(413, str(error))
    except Busy:
        response = failure(503, "too many tokens wait; try again", {"retry-after": "1"})
    except Late:
        response = failure(504, f"no answer within {service.limits.timeout_seconds:g} s")
    except FloatingPointError as error:
        service.monitor.failures.labels(run, "not a number").inc()
        response = failure(500, str(error))
    except (asyncio.CancelledError, ClientDisconnect):
        response = failure(499, "the client is gone")
    except (MemoryError, RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
        log.error("%s: %s", run, type(error).__name__)  # its message may hold the text
        service.monitor.failures.labels(run, type(error).__name__).inc()
        response = failure(500, f"the answer could not be computed ({type(error).__name__})")
    service.monitor.requests.labels(run, response.status_code).inc()
    service.monitor.seconds.labels(run).observe(time.perf_counter() - began)
    return response


async def unless_gone(request: Request, work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """The result of `work`, which is cancelled when the client goes; the request's body has been read."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
        return await task
    finally:
        gone.cancel()


def failure(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": reason}, status, headers=headers)


def unknown_run(service: Service, run: str) -> JSONResponse:
    return failure(404, f"no run '{run[:100]}' is served here; there is {', '.join(service.runs)}")
