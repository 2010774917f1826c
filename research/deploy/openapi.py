"""What `/openapi.json` says of the service: examples of requests and answers, refusals, and the key."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

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


def described(properties: dict[str, Any], asked: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of a POST path: the fields of its body with their schema, an example, and an answer to it."""
    required = [name for name in asked if not properties[name].get("optional")]
    shown = {name: {k: v for k, v in schema.items() if k != "optional"} for name, schema in properties.items()}
    body = {"schema": {"type": "object", "required": required, "properties": shown}, "example": asked}
    responses: dict[int, Any] = {code: {"description": reason} for code, reason in REFUSALS.items()}
    responses[200] = {"content": {"application/json": {"example": answer}}}
    return {
        "openapi_extra": {"requestBody": {"required": True, "content": {"application/json": body}}},
        "responses": responses,
    }


def describe(app: FastAPI) -> None:
    """Say that a key is asked for, in a header."""

    def schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, routes=app.routes)
            made.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            app.openapi_schema = {**made, "security": [{"key": []}]}
        return app.openapi_schema

    app.openapi = schema  # type: ignore[method-assign]
