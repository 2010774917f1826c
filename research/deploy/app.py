"""The HTTP service: predictions as JSON, the Open Inference Protocol, health, metrics, and a page to try it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Router

from research.deploy.answering import answered, unknown_run
from research.deploy.completions import completion_endpoints, field_read
from research.deploy.guard import Guard
from research.deploy.inference_protocol import answer_tensors, rows_of_tensors
from research.deploy.keys import Keys
from research.deploy.openapi import ANSWER, Endpoint, described, openapi
from research.deploy.service import Service
from research.inference.predictor import BadInput

PAGE = Path(__file__).parent / "page.html"


def make_app(service: Service, keys: Keys | None) -> Any:
    """The ASGI application of a service; `keys`: None lets everyone in."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    endpoints = [
        *prediction_endpoints(service),  # paths are tried in this order
        *completion_endpoints(service),
        *protocol_endpoints(service),
        *feedback_endpoints(service),
        *health_endpoints(service),
    ]
    document = openapi(endpoints)

    async def schema(request: Request) -> Response:
        return JSONResponse(document)

    routes = [each.route for each in (*endpoints, Endpoint("GET", "/openapi.json", schema))]
    return Guard(Router(routes, lifespan=lifespan), keys, service.limits.body_bytes)


def health_endpoints(service: Service) -> list[Endpoint]:
    """Health, metrics and the page."""

    async def live(request: Request) -> Response:
        """The process answers."""
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        """Runs are loaded and warm; 503 before that and while the process ends."""
        good = service.is_ready and all(served.engine.is_alive for served in service.runs.values())
        return JSONResponse({"ready": good}, 200 if good else 503)

    async def metrics(request: Request) -> Response:
        """Metrics in the text format of Prometheus."""
        text = await asyncio.to_thread(service.monitor.text)  # tests of drift take a while
        return Response(text, media_type="text/plain; version=0.0.4")

    async def page(request: Request) -> Response:
        """A page to try the service."""
        return HTMLResponse(PAGE.read_text("utf-8"))

    async def runs(request: Request) -> Response:
        """What is served: task, fields, labels."""
        return JSONResponse({"runs": [description_of(service, name) for name in service.runs]})

    return [
        Endpoint("GET", "/live", live),
        Endpoint("GET", "/v2/health/live", live),
        Endpoint("GET", "/ready", ready),
        Endpoint("GET", "/v2/health/ready", ready),
        Endpoint("GET", "/metrics", metrics),
        Endpoint("GET", "/", page),
        Endpoint("GET", "/v1/runs", runs),
    ]


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


def prediction_endpoints(service: Service) -> list[Endpoint]:
    """POST /v1/predict/{run}."""
    inputs = {"type": "array", "items": {"type": "object"}, "maxItems": service.limits.texts}
    about = described({"inputs": inputs}, {"inputs": [{"text": "A film to remember."}]}, {"predictions": [ANSWER]})

    async def predict(request: Request) -> Response:
        """Label rows; each holds the task's own fields."""
        run = request.path_params["run"]

        async def work(content: Any) -> dict[str, Any]:
            rows = content.get("inputs") if isinstance(content, dict) else None
            if not isinstance(rows, list) or not rows:
                raise BadInput('give {"inputs": [{"text": "..."}, ...]}, a list with one row at least')
            if len(rows) > service.limits.texts:
                raise BadInput(f"{len(rows)} inputs; at most {service.limits.texts} in one request")
            return {"predictions": await service.answer(run, rows)}

        return await answered(service, run, request, work)

    return [Endpoint("POST", "/v1/predict/{run}", predict, about)]


def feedback_endpoints(service: Service) -> list[Endpoint]:
    """POST and GET /v1/feedback/{run}."""
    entry = {"type": "object", "required": ["id", "gold"]}
    example = {"feedback": [{"id": ANSWER["id"], "gold": "positive"}]}
    about = described({"feedback": {"type": "array", "items": entry}}, example, {"counted": 1})

    async def feedback(request: Request) -> Response:
        """Say what the right answers were; `id` is that of a prediction. No text is kept."""
        run = request.path_params["run"]

        async def work(content: Any) -> dict[str, Any]:
            entries = content.get("feedback") if isinstance(content, dict) else None
            if not isinstance(entries, list) or not 0 < len(entries) <= service.limits.texts:
                most = service.limits.texts
                raise BadInput(f'give {{"feedback": [{{"id": "...", "gold": "..."}}]}}, 1 to {most} of them')
            return {"counted": await asyncio.to_thread(service.take_feedback, run, entries)}

        return await answered(service, run, request, work)

    async def scores(request: Request) -> Response:
        """The scores of all feedback to the model that is served, with 95 % intervals over examples."""
        run = request.path_params["run"]
        if run not in service.runs:
            return unknown_run(service, run)
        return JSONResponse(await asyncio.to_thread(service.runs[run].feedback.scores))

    path = "/v1/feedback/{run}"
    return [Endpoint("POST", path, feedback, about), Endpoint("GET", path, scores)]


def protocol_endpoints(service: Service) -> list[Endpoint]:
    """The Open Inference Protocol, version 2, over the same engines: KServe, Triton and Seldon speak it."""

    async def model(request: Request) -> Response:
        """The tensors that a run reads and answers with."""
        run = request.path_params["run"]
        if run not in service.runs:
            return unknown_run(service, run)
        predictor = service.runs[run].predictor
        tensors = [{"name": field, "datatype": "BYTES", "shape": [-1]} for field in predictor.required]
        outputs = [{"name": "prediction", "datatype": "BYTES", "shape": [-1]}]
        return JSONResponse({"name": run, "platform": "research", "inputs": tensors, "outputs": outputs})

    async def model_ready(request: Request) -> Response:
        """Whether a run is loaded and warm."""
        good = request.path_params["run"] in service.runs and service.is_ready
        return JSONResponse({"ready": good}, 200 if good else 503)

    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["A film to remember."]}
    output = {"name": "prediction", "shape": [1], "datatype": "BYTES", "data": ["positive"]}
    example = {"model_name": "sst2", "outputs": [output]}
    about = described({"inputs": {"type": "array", "items": {"type": "object"}}}, {"inputs": [tensor]}, example)

    async def infer(request: Request) -> Response:
        """Label rows that are given as tensors."""
        run = request.path_params["run"]

        async def work(content: Any) -> dict[str, Any]:
            rows = rows_of_tensors(content, service.limits.texts)
            answers = await service.answer(run, rows)
            outputs = answer_tensors(answers)
            return {"model_name": run, "outputs": outputs, **({"id": content["id"]} if "id" in content else {})}

        return await answered(service, run, request, work)

    path = "/v2/models/{run}"
    return [
        Endpoint("POST", f"{path}/infer", infer, about),
        Endpoint("GET", path, model),
        Endpoint("GET", f"{path}/ready", model_ready),
    ]
