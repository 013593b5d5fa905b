"""`/health/live`, `/health/ready` (or `/health`) and `/metrics`: what those ask who keep a server running.

"live" says that this process answers. "ready" asks the engine itself, in its own loop, so it cannot be true
while the engine hangs; a supervisor that restarts on "live" alone never restarts a server that is only busy.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from phi4.server.http.exchange import Service
from phi4.server.http.metrics import CONTENT_TYPE
from phi4.server.http.openapi import answer_of

RETRY_S = "1"


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes to an app."""

    @app.get("/health/live", **answer_of())
    async def live() -> Response:
        """This process answers."""
        return JSONResponse({"status": "live"})

    @app.get("/health", **answer_of())
    @app.get("/health/ready", **answer_of())
    async def ready() -> Response:
        """A request sent now would be taken; 503 otherwise."""
        health = await service.client.health()
        body = {"status": health.state, "restarts": health.restarts, "answered_ms": health.answered_ms}
        if health.ready:
            return JSONResponse(body)
        return JSONResponse(body, 503, {"retry-after": RETRY_S})

    @app.get("/metrics", **answer_of(text=True))
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)
