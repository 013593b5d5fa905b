"""The outermost door: every request gets an id, and what no honest client sends goes no further.

Checked here, before keys and routes: the Host header against the list (DNS rebinding), requests that a
browser brings from another site (`origins`), size and number of headers, length of the path, compressed or
announced oversized bodies. Whatever happens behind, the answer is one that `errors` made, and what a request
holds (its ticket, its answers in the engine) is given back when the gate closes behind it. HEAD is GET whose
body stays here.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from phi4.server.http.auth import raw_path, request_id
from phi4.server.http.errors import (
    BodyTooLarge,
    HeadersTooLarge,
    WrongHost,
    WrongMediaType,
    error_response,
    log_fault,
)
from phi4.server.http.origins import Origins, RawHeaders, is_preflight, preflight, shown_to
from phi4.server.settings import ServerSettings

_log = logging.getLogger(__name__)

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
MAX_PATH_BYTES = 8 * 1024
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}))(?::(\d{1,5}))?")
_ALWAYS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_EXITS = "phi4.exits"


class Gate:
    """ASGI middleware around everything.

    Args:
        app: What is behind it.
        settings: Hosts, origins and the size of bodies.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings
        self._hosts = Hosts(settings)
        self._origins = Origins(settings.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            is_head = scope["method"] == "HEAD"
            name = f"req_{secrets.token_hex(12)}"
            # A copy: whoever called goes by what the client asked for.
            scope = {**scope, "phi4.request_id": name, "method": "GET" if is_head else scope["method"]}
            await self._answer(scope, receive, _Sender(send, name, is_head))
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: _Sender) -> None:
        try:
            origin = self._checked_origin(scope)
            send.add(shown_to(origin))
            if origin and is_preflight(scope["method"], scope["headers"]):
                send.add(preflight(scope["headers"]))
                await Response(status_code=204)(scope, receive, send)
                return
            self._check_body(dict(scope["headers"]))
            async with AsyncExitStack() as exits:
                scope[_EXITS] = exits
                await self._app(scope, receive, send)
        except ClientDisconnect:
            _log.debug("%s: the client has gone", request_id(scope))
        except Exception as error:
            if send.started:
                log_fault(error, request_id(scope))
            else:
                await error_response(error, request_id(scope))(scope, receive, send)

    def _checked_origin(self, scope: Scope) -> bytes:
        """Look at the head of a request; returns the listed origin it comes from, as `Origins.checked`."""
        headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        size = sum(len(name) + len(value) for name, value in headers)
        if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
            raise HeadersTooLarge(
                f"at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes in all are read"
            )
        if len(raw_path(scope)) + len(scope.get("query_string", b"")) > MAX_PATH_BYTES:
            raise HeadersTooLarge(f"the path is over {MAX_PATH_BYTES} bytes")
        host = self._hosts.checked([value for name, value in headers if name == b"host"])
        return self._origins.checked([value for name, value in headers if name == b"origin"], host)

    def _check_body(self, headers: dict[bytes, bytes]) -> None:
        if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            raise WrongMediaType("compressed bodies are not read; send it as it is")
        announced = headers.get(b"content-length", b"0")
        limit = self._settings.max_body_bytes
        if not announced.isdigit() or len(announced) > 18 or int(announced) > limit:
            raise BodyTooLarge(f"the body is over the limit of {limit:,} bytes")


class Hosts:
    """Values of the Host header that are answered.

    A name has to be listed: a site can make its own name lead here, and a browser then sends that name. An
    address cannot be made to lead anywhere else, so a server that listens at all addresses answers to any.

    Args:
        settings: `hosts` and `host`.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._names = frozenset(name.lower() for name in settings.hosts)
        self._any_address = settings.host in ("0.0.0.0", "::")

    def checked(self, values: Sequence[bytes]) -> bytes:
        """The one Host header, in lower case.

        Raises:
            WrongHost: None or several, malformed, or not one of ours.
        """
        found = _HOST.fullmatch(values[0]) if len(values) == 1 else None
        if found is None:
            raise WrongHost("give one Host header with the name and port of this server")
        name = found[1].decode("ascii").lower()
        if (
            "*" not in self._names
            and name not in self._names
            and not (self._any_address and _is_address(name))
        ):
            raise WrongHost("this server does not answer to that Host; its operator can allow it by name")
        return values[0].lower()


def exits_of(scope: Scope) -> AsyncExitStack:
    """What is given back when the answer has gone, however that happens."""
    found = scope[_EXITS]
    assert isinstance(found, AsyncExitStack), "the gate stands around every route"
    return found


class _Sender:
    """Adds headers to an answer and remembers that it has begun; of an answer to HEAD nothing else goes."""

    def __init__(self, send: Send, name: str, is_head: bool) -> None:
        self._send = send
        self._headers = [*_ALWAYS, (b"x-request-id", name.encode())]
        self._is_head = is_head
        self.started = False

    def add(self, headers: RawHeaders) -> None:
        """More headers for the answer."""
        self._headers += headers

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            ours = {name for name, _ in message.get("headers", ())}
            more = [(name, value) for name, value in self._headers if name not in ours]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        elif self._is_head:
            message = {**message, "body": b""}
        await self._send(message)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
