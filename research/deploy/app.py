"""The HTTP service: predictions as JSON, the Open Inference Protocol, health, metrics, and a page to try it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from research.deploy.answering import answered, unknown_run
from research.deploy.completions import add_completions, field_read
from research.deploy.guard import Guard
from research.deploy.inference_protocol import answer_tensors, rows_of_tensors
from research.deploy.keys import Keys
from research.deploy.openapi import ANSWER, describe, described
from research.deploy.service import Service
from research.inference.predictor import BadInput

PAGE = Path(__file__).parent / "page.html"


def make_app(service: Service, keys: Keys | None) -> Any:
    """The ASGI application of a service; `keys`: None lets everyone in."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(title="research serve", docs_url=None, redoc_url=None, lifespan=lifespan)
    add_health(app, service)
    add_predictions(app, service)
    add_completions(app, service)
    add_feedback(app, service)
    add_protocol(app, service)
    describe(app)
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
        return {"runs": [description_of(service, name) for name in service.runs]}


def description_of(service: Service, name: str) -> dict[str, Any]:
    """What a client needs to know of a run."""
    predictor = service.runs[name].predictor
    return {
        "name": name,
        "task": predictor.config.task.name,
        "model": predictor.trained.base_model,
        "fields": predictor.fields,
        "required": predictor.required,
        "lists": [field for field in predictor.data.text_lists if field in predictor.fields],
        "labels": predictor.data.labels,
        "descriptions": predictor.data.descriptions,
        "max_length": predictor.config.data.max_length,
        "reads": field_read(predictor),
    }


def add_predictions(app: FastAPI, service: Service) -> None:
    """POST /v1/predict/{run}."""
    inputs = {"type": "array", "items": {"type": "object"}, "maxItems": service.limits.texts}
    about = described({"inputs": inputs}, {"inputs": [{"text": "A film to remember."}]}, {"predictions": [ANSWER]})

    @app.post("/v1/predict/{run}", **about)
    async def predict(run: str, request: Request) -> Response:
        """Label rows; each holds the task's own fields."""

        async def work(content: Any) -> dict[str, Any]:
            rows = content.get("inputs") if isinstance(content, dict) else None
            if not isinstance(rows, list) or not rows:
                raise BadInput('give {"inputs": [{"text": "..."}, ...]}, a list with one row at least')
            if len(rows) > service.limits.texts:
                raise BadInput(f"{len(rows)} inputs; at most {service.limits.texts} in one request")
            return {"predictions": await service.answer(run, rows)}

        return await answered(service, run, request, work)


def add_feedback(app: FastAPI, service: Service) -> None:
    """POST and GET /v1/feedback/{run}."""
    entry = {"type": "object", "required": ["id", "gold"]}
    example = {"feedback": [{"id": ANSWER["id"], "gold": "positive"}]}
    about = described({"feedback": {"type": "array", "items": entry}}, example, {"counted": 1})

    @app.post("/v1/feedback/{run}", **about)
    async def feedback(run: str, request: Request) -> Response:
        """Say what the right answers were; `id` is that of a prediction. No text is kept."""

        async def work(content: Any) -> dict[str, Any]:
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

    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["A film to remember."]}
    output = {"name": "prediction", "shape": [1], "datatype": "BYTES", "data": ["positive"]}
    example = {"model_name": "sst2", "outputs": [output]}
    about = described({"inputs": {"type": "array", "items": {"type": "object"}}}, {"inputs": [tensor]}, example)

    @app.post("/v2/models/{run}/infer", **about)
    async def infer(run: str, request: Request) -> Response:
        async def work(content: Any) -> dict[str, Any]:
            rows = rows_of_tensors(content, service.limits.texts)
            answers = await service.answer(run, rows)
            outputs = answer_tensors(answers)
            return {"model_name": run, "outputs": outputs, **({"id": content["id"]} if "id" in content else {})}

        return await answered(service, run, request, work)
