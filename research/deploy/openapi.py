"""What `/openapi.json` says of the service: examples of requests and answers, refusals, and the key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from research import __version__

REFUSALS = {
    401: "no key, or a wrong one",
    404: "no such run",
    408: "the body does not come in time",
    413: "the body is too large",
    422: "a row that cannot be answered: which one, and why",
    429: "more requests than the key allows; Retry-After",
    500: "the model gave a number that is none, or failed",
    503: "too many tokens wait; Retry-After",
    504: "no answer in time",
}
ANSWER = {"prediction": "positive", "probabilities": {"negative": 0.02, "positive": 0.98}, "id": "5f0c0a62d0c1b7aa"}


@dataclass(frozen=True)
class Endpoint:
    """A method and path, what answers it, and what OpenAPI says of it beside the docstring of that."""

    method: str
    path: str
    handler: Callable[[Request], Awaitable[Response]]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def route(self) -> Route:
        return Route(self.path, self.handler, methods=[self.method])

    @property
    def description(self) -> dict[str, Any]:
        """The operation, as OpenAPI has it."""
        run = {"name": "run", "in": "path", "required": True, "schema": {"type": "string"}}
        return {
            "summary": (self.handler.__doc__ or "").strip(),
            "parameters": [run] if "{run}" in self.path else [],
            "responses": {"200": {"description": "the answer"}},
            **self.about,
        }


def described(properties: dict[str, Any], asked: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI says of a POST: the fields of its body with their schema, an example, and an answer to it."""
    required = [name for name in asked if not properties[name].get("optional")]
    shown = {name: {k: v for k, v in schema.items() if k != "optional"} for name, schema in properties.items()}
    body = {"schema": {"type": "object", "required": required, "properties": shown}, "example": asked}
    responses: dict[str, Any] = {str(code): {"description": reason} for code, reason in REFUSALS.items()}
    responses["200"] = {"description": "the answer", "content": {"application/json": {"example": answer}}}
    return {
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": dict(sorted(responses.items())),
    }


def openapi(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The document: every path, and that a key is asked for in a header."""
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = endpoint.description
    return {
        "openapi": "3.1.0",
        "info": {"title": "research serve", "version": __version__},
        "paths": paths,
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}],
    }
