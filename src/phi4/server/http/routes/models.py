"""`/v1/models`, `/version` and `/tokenize`: what is served, and what a prompt becomes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from phi4.server.http.exchange import Exchange, Service
from phi4.server.http.openapi import answer_of, body_of
from phi4.server.http.schemas.tokenize import TokenizeRequest
from phi4.server.registry import ServedModel
from phi4.version import __version__


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes to an app."""

    @app.get("/v1/models", **answer_of())
    async def models() -> Response:
        """Every name a request may use."""
        return JSONResponse(
            {"object": "list", "data": [_entry(model, service) for model in service.models.all()]}
        )

    @app.get("/v1/models/{name:path}", **answer_of())
    async def model(name: str) -> Response:
        """One of them."""
        if not name:
            raise HTTPException(404)
        return JSONResponse(_entry(service.models.find(name), service))

    @app.get("/version", **answer_of())
    async def version() -> Response:
        """The version of phi4."""
        return JSONResponse({"version": __version__})

    @app.post("/tokenize", **body_of(TokenizeRequest))
    async def tokenize(request: Request) -> Response:
        """The tokens of a prompt or of a conversation, media included."""
        exchange = Exchange(service, request)
        asked = await exchange.json(TokenizeRequest)
        model = service.models.find(asked.model)
        prepared = await exchange.prepare(asked.prepare(model.adapter))
        tokens = list(prepared.token_ids)
        return JSONResponse({"count": len(tokens), "max_model_len": _longest(service), "tokens": tokens})


def _entry(model: ServedModel, service: Service) -> dict[str, Any]:
    card = service.client.card
    return {
        "id": model.name,
        "object": "model",
        "created": service.started,
        "owned_by": "phi4",
        "root": model.name if not model.parent else model.parent,
        "parent": model.parent or None,
        "max_model_len": _longest(service),
        "max_new_tokens": service.settings.max_new_tokens or card.max_context_tokens - 1,
        "modalities": list(card.modalities),
    }


def _longest(service: Service) -> int:
    """Tokens prompt and answer may take together; clients fit prompts to it: none within it is too long."""
    context = service.client.card.max_context_tokens
    return min(context, service.settings.max_prompt_tokens or context)
