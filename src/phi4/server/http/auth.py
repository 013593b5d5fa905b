"""Who may ask: keys are known by their digest alone, and every path but a literal list needs one.

`KeyGate` stands in front of the router and judges the path as it came over the wire, byte for byte, before
anything decodes or normalises it; a route added tomorrow is closed until it is written into `OPEN_PATHS`.
With no keys configured it lets everybody in, which settings allow on a loopback address only (or when asked).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from phi4.server.http.errors import Unauthorised, error_response

OPEN_PATHS = (b"/", b"/health", b"/health/live", b"/health/ready")
"""The chat page, which is only served to this machine, and what a supervisor asks."""
MAX_KEY_BYTES = 512
_SCOPE_KEY = "phi4.key"


def digest_of(key: str) -> str:
    """SHA-256 of a key in hexadecimal, which is all a server keeps of it."""
    return hashlib.sha256(key.encode()).hexdigest()


def name_of(digest: str) -> str:
    """How a key is called inside the server, in caches and in the log: the first 16 digits of its digest."""
    return digest[:16]


class Keys:
    """The keys of a server.

    Args:
        digests: SHA-256 of each, in hexadecimal; none = nobody is asked.
    """

    def __init__(self, digests: Sequence[str]) -> None:
        self._digests = tuple(digest.encode() for digest in digests)

    @property
    def asked(self) -> bool:
        """Whether a key is needed at all."""
        return bool(self._digests)

    def name(self, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
        """Name of the key a request brings; None = it brings none that is known.

        The digest of what was brought is compared with every digest, whole and in constant time, so the time
        taken says nothing about how much of a key was right.
        """
        given = [value for name, value in headers if name == b"authorization"]
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        usable = scheme.lower() == b"bearer" and 0 < len(key) <= MAX_KEY_BYTES
        digest = hashlib.sha256(key if usable else b"").hexdigest().encode()
        found = None
        for known in self._digests:
            if hmac.compare_digest(digest, known):
                found = known
        return name_of(found.decode()) if found is not None and usable else None


class KeyGate:
    """ASGI middleware: lets a request pass with the name of its key, or answers 401.

    Args:
        app: What is behind it.
        keys: The keys.
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Judge one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name: str | None = ""
        if self._keys.asked and raw_path(scope) not in OPEN_PATHS:
            name = self._keys.name(scope["headers"])
        if name is None:
            refused = Unauthorised("give a valid key in the header Authorization: Bearer KEY")
            await error_response(refused, request_id(scope))(scope, receive, send)
            return
        scope[_SCOPE_KEY] = name
        await self._app(scope, receive, send)


def raw_path(scope: Scope) -> bytes:
    """The path as the client sent it, still encoded, without the query."""
    raw = scope.get("raw_path")
    return raw.partition(b"?")[0] if isinstance(raw, bytes) else scope["path"].encode("utf-8", "replace")


def key_name(scope: Scope) -> str:
    """Name of the key a request came with; empty = none was asked for."""
    return str(scope[_SCOPE_KEY])


def request_id(scope: Scope) -> str:
    """Id the gate gave to a request."""
    return str(scope.get("phi4.request_id", ""))
