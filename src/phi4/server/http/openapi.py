"""The OpenAPI document: what bodies look like, although routes read them themselves.

Bodies are parsed by `body`, stricter than the framework would, so the framework does not know their schemas.
`body_of` says at each route which one it reads; `describe_bodies` puts all of them into the document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from phi4.version import __version__

_REF = "#/components/schemas/{model}"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code", "request_id"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
                "request_id": {"type": "string"},
            },
        }
    },
}
_STATUSES = {
    400: "The request cannot be done as it stands.",
    401: "No valid key.",
    403: "A browser brought it from another site.",
    404: "Nothing of that name.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body is of another type, or compressed.",
    421: "The Host header names somebody else.",
    429: "This key has too much under way.",
    431: "Too many or too long headers.",
    500: "A fault of the server.",
    503: "No room, or the engine is starting.",
    504: "Not done in time.",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
    for status, text in _STATUSES.items()
}
_OBJECT = {"application/json": {"schema": {"type": "object"}}}
_EVENTS: dict[str, Any] = {"text/event-stream": {}}
_TEXT = {"text/plain": {"schema": {"type": "string"}}}


def answer_of(*, streams: bool = False, text: bool = False) -> dict[str, Any]:
    """Arguments of a route without a body: what it answers.

    Args:
        streams: It may answer with events.
        text: It may answer with plain text.
    """
    content = {**_OBJECT, **(_EVENTS if streams else {}), **(_TEXT if text else {})}
    answer = {200: {"description": "The answer.", "content": content}}
    return {"response_model": None, "responses": {**answer, **ERRORS}}


def body_of(model: type[BaseModel], *, streams: bool = False) -> dict[str, Any]:
    """Arguments of a route that reads a JSON body.

    Args:
        model: Its schema.
        streams: As `answer_of`.
    """
    reference = {"schema": {"$ref": _REF.format(model=model.__name__)}}
    body = {"required": True, "content": {"application/json": reference}}
    return {**answer_of(streams=streams), "openapi_extra": {"requestBody": body}}


def form_of(model: type[BaseModel]) -> dict[str, Any]:
    """Arguments of a route that reads a form with one file."""
    file = {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}},
    }
    schema = {"allOf": [file, {"$ref": _REF.format(model=model.__name__)}]}
    body = {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    return {**answer_of(streams=True, text=True), "openapi_extra": {"requestBody": body}}


def describe_bodies(app: FastAPI, models: Sequence[type[BaseModel]]) -> None:
    """Give an app a document in which the bodies of its routes are described.

    Args:
        app: The app with all its routes.
        models: Every schema that `body_of` or `form_of` was given.
    """
    made: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        if not made:
            found = get_openapi(
                title="phi4",
                version=__version__,
                description="Phi-4 models in the words of OpenAI's API.",
                routes=app.routes,
            )
            made.update(_with_bodies(found, models))
        return made

    app.openapi = document  # type: ignore[method-assign]


def _with_bodies(document: dict[str, Any], models: Sequence[type[BaseModel]]) -> dict[str, Any]:
    wanted = [(model, "validation") for model in models]
    _, definitions = models_json_schema(wanted, ref_template=_REF)  # type: ignore[arg-type]
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(definitions.get("$defs", {}))
    return document
