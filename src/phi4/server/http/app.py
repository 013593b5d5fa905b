"""The application: routes behind the gate and the keys, put together and nothing more.

    app = build_app(client, settings)          # the client is started and stopped by `phi4 serve`, not here

A request passes the gate (id, Host, size), then the keys, then a route. The framework's own pages of
documentation load scripts from elsewhere and are off; `/openapi.json` is there for whoever has a key.
"""

from __future__ import annotations

import time

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from phi4.errors import Phi4Error
from phi4.server.http.auth import KeyGate, Keys, request_id
from phi4.server.http.errors import error_response
from phi4.server.http.exchange import Service
from phi4.server.http.fetching import Fetcher
from phi4.server.http.gate import Gate
from phi4.server.http.metrics import Metrics
from phi4.server.http.openapi import describe_bodies
from phi4.server.http.routes import audio, chat, completions, health, models, page, responses
from phi4.server.http.schemas.audio import AudioForm
from phi4.server.http.schemas.chat import ChatRequest
from phi4.server.http.schemas.completions import CompletionRequest
from phi4.server.http.schemas.responses import ResponsesRequest
from phi4.server.http.schemas.tokenize import TokenizeRequest
from phi4.server.http.stored import StoredResponses
from phi4.server.registry import ServedModels
from phi4.server.settings import ServerSettings
from phi4.server.worker.client import EngineClient
from phi4.version import __version__

BODIES = (AudioForm, ChatRequest, CompletionRequest, ResponsesRequest, TokenizeRequest)


def build_app(client: EngineClient, settings: ServerSettings) -> FastAPI:
    """The application of one server.

    Args:
        client: The processes behind it; asked when requests come, not now.
        settings: The options.

    Raises:
        InvalidRequest: Served names are malformed or collide.
    """
    app = FastAPI(title="phi4", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    served = ServedModels(settings.served_names, settings.adapters, lambda: client.card)
    service = Service(
        client=client,
        settings=settings,
        models=served,
        metrics=Metrics(client.stats, lambda: served.all()[0].name),
        fetcher=Fetcher(settings),
        stored=StoredResponses(),
        started=int(time.time()),
    )
    for module in (chat, completions, responses, audio, models, health):
        module.add_routes(app, service)
    if settings.page and settings.is_local:
        page.add_page(app)
    describe_bodies(app, BODIES)
    app.add_exception_handler(Phi4Error, _failed)
    app.add_exception_handler(HTTPException, _failed)
    app.add_middleware(KeyGate, keys=Keys(settings.key_digests))
    app.add_middleware(Gate, settings=settings)
    return app


async def _failed(request: Request, error: Exception) -> Response:
    headers = {}
    if isinstance(error, HTTPException) and error.status_code == 405:
        # The framework names the methods of one route; a path may have several.
        path = request.scope["path"]
        found = {
            method for route in request.app.routes if route.path_regex.match(path) for method in route.methods
        }
        found |= {"HEAD"} if "GET" in found else set()  # which the gate makes of it
        headers["allow"] = ", ".join(sorted(found))
    return error_response(error, request_id(request.scope), headers)
