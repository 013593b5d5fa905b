"""`/`: a small page to talk with the model, served to this machine only.

One file without anything from elsewhere. Its script and style are named by their hashes in the policy that
goes with it, so a browser runs exactly these: an answer is shown as text and could not run if it were not.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import partial
from importlib import resources

from fastapi import FastAPI
from starlette.responses import HTMLResponse, Response

from phi4.server.http.openapi import answer_of

_PARTS = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def add_page(app: FastAPI) -> None:
    """Add the page to an app."""
    text = resources.files("phi4.server.http").joinpath("page.html").read_text(encoding="utf-8")
    answer = partial(HTMLResponse, text, headers={"content-security-policy": policy(text)})

    @app.get("/", **answer_of(), include_in_schema=False)
    async def page() -> Response:
        """The page."""
        return answer()


def policy(text: str) -> str:
    """What a browser may do with a page: run its own script, show its own style, talk to this server."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, content in _PARTS.findall(text):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")
        hashes[kind].append(f"'sha256-{digest}'")
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(hashes['script'])}",
            f"style-src {' '.join(hashes['style'])}",
            "img-src data: blob:",
            "media-src data: blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
