"""Chat and completion as OpenAI's clients ask for them, whole or as server-sent events while text is generated.

The run decides how text is generated: its template, search and stop texts are those it was scored with.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from research.deploy.answering import UnknownRun, answered, failed
from research.deploy.openapi import ANSWER, Endpoint, described
from research.deploy.service import Service
from research.inference.predictor import BadInput, Predictor, Row

KEYS = ("model", "stream", "max_tokens", "max_completion_tokens", "user")
CHAT, TEXT = "messages", "prompt"  # what a request names what the model reads
PATHS = {CHAT: "/v1/chat/completions", TEXT: "/v1/completions"}


@dataclass(frozen=True)
class Asked:
    """A request for text."""

    run: str
    row: Row
    name: str  # CHAT or TEXT
    stream: bool
    most_tokens: int | None


def completion_endpoints(service: Service) -> list[Endpoint]:
    """POST /v1/chat/completions and /v1/completions, GET /v1/models."""

    async def chat(request: Request) -> Response:
        """Go on with a chat; `stream`: as server-sent events."""
        return await answered(service, None, request, lambda content: completion(service, content, CHAT))

    async def complete(request: Request) -> Response:
        """Go on from a text; `stream`: as server-sent events."""
        return await answered(service, None, request, lambda content: completion(service, content, TEXT))

    async def models(request: Request) -> Response:
        """The runs that generate text."""
        names = [name for name, served in service.runs.items() if field_read(served.predictor)]
        listed = [{"id": name, "object": "model", "owned_by": "research"} for name in names]
        return JSONResponse({"object": "list", "data": listed})

    turns = [{"role": "user", "content": "Where is my parcel?"}]
    return [
        Endpoint("POST", PATHS[CHAT], chat, described_path(CHAT, "array", turns)),
        Endpoint("POST", PATHS[TEXT], complete, described_path(TEXT, "string", "Where is my parcel?")),
        Endpoint("GET", "/v1/models", models),
    ]


def described_path(name: str, kind: str, example: Any) -> dict[str, Any]:
    """What OpenAPI says of a path."""
    optional = {"stream": {"type": "boolean", "optional": True}, "max_tokens": {"type": "integer", "minimum": 1}}
    asked = Asked("assistant", {}, name, stream=False, most_tokens=None)
    answer = chunk(asked, "It is on its way.", {"id": ANSWER["id"], "ended": True}, "message")
    properties = {"model": {"type": "string"}, name: {"type": kind}, **optional}
    return described(properties, {"model": "assistant", name: example, "stream": True}, answer)


def field_read(predictor: Predictor) -> str | None:
    """The one field that a run reads to generate text; None where it generates none, or reads several."""
    if predictor.generator is None:
        return None
    if CHAT in predictor.fields:
        return CHAT
    return predictor.required[0] if len(predictor.required) == 1 else None


def request_of(service: Service, content: Mapping[str, Any], name: str) -> Asked:
    """What a request asks for. Raises BadInput for keys that do not act, and UnknownRun for runs without text."""
    run, stream = content["model"], content.get("stream", False)
    predictor = service.runs[run].predictor
    if predictor.generator is None:
        raise UnknownRun
    field = field_read(predictor)
    if field is None or (field == CHAT) != (name == CHAT):
        raise BadInput(f"ask '{run}' at {PATHS[CHAT if field == CHAT else TEXT] if field else f'/v1/predict/{run}'}")
    for key in content:
        if key not in (*KEYS, name):
            raise BadInput(f"'{key}' does not act here: the run decides how text is generated; leave it out")
    if type(stream) is not bool:
        raise BadInput("'stream' must be true or false")
    most = content.get("max_completion_tokens", content.get("max_tokens"))
    if most is not None and (type(most) is not int or most < 1):
        raise BadInput("'max_tokens' must be a positive integer")
    if most is not None and predictor.generator.keys.num_beams > 1:
        raise BadInput(f"'{run}' searches with beams, which 'max_tokens' cannot end; leave it out")
    return Asked(run, {field: content.get(name)}, name, stream, most)


async def completion(service: Service, content: Mapping[str, Any], name: str) -> dict[str, Any] | Response:
    """The whole text, or a response that streams it; a request that fails at once has its status."""
    asked = request_of(service, content, name)
    parts = service.stream(asked.run, asked.row, asked.most_tokens)
    if asked.stream:
        events = event_stream(service, asked, await anext(parts), parts)
        return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
    async for part in parts:
        answer = part
    assert isinstance(answer, dict)
    return chunk(asked, answer["prediction"], answer, "message")


async def event_stream(
    service: Service, asked: Asked, first: str | Row, rest: AsyncIterator[str | Row]
) -> AsyncIterator[str]:
    """Server-sent events as OpenAI's clients read them; an error after the first is an event of its own."""
    part: str | Row | None = first
    try:
        while part is not None:
            text, answer = (part, None) if isinstance(part, str) else ("", part)
            yield f"data: {json.dumps(chunk(asked, text, answer, 'delta'), ensure_ascii=False)}\n\n"
            part = await anext(rest, None)
        yield "data: [DONE]\n\n"
    except Exception as error:
        status, reason = failed(service, asked.run, error)
        yield f"data: {json.dumps({'error': {'message': reason, 'code': status}})}\n\n"
    finally:
        await rest.aclose()  # type: ignore[attr-defined]


def chunk(asked: Asked, text: str, answer: Row | None, what: str) -> dict[str, Any]:
    """A part of an answer, or the whole; `answer` is there at the end. `what`: delta or message."""
    ended = None if answer is None else "stop" if answer["ended"] else "length"
    kind = ("chat.completion" if asked.name == CHAT else "text_completion") + (".chunk" if what == "delta" else "")
    said = {"role": "assistant", "content": text}
    choice = {"index": 0, **({what: said} if asked.name == CHAT else {"text": text}), "finish_reason": ended}
    about = {} if answer is None else {"id": answer["id"]} | ({"truncated": True} if answer.get("truncated") else {})
    return {"object": kind, "created": int(time.time()), "model": asked.run, **about, "choices": [choice]}
