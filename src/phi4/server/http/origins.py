"""Which other sites may ask through a browser, and read the answers (CORS): none that is not listed.

Browsers say in the Origin header which site makes them send a request, and so do programs built on one:
Electron, extensions, web views of phones. A request without that header is no browser's, or comes from a page
of this server. What a listed origin may do is what anybody may: keys are asked for as ever, and since they
travel in a header and not in a cookie, no credentials of the browser are ever allowed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from phi4.server.http.errors import Refused

RawHeaders = list[tuple[bytes, bytes]]
_METHODS = b"GET, HEAD, POST, DELETE"
_SHOWN = b"x-request-id, retry-after, x-should-retry, x-finish-reason"
"""Headers of answers that a page may read beside the ordinary ones."""
_MAX_AGE_S = b"600"
_NAMES = re.compile(rb"[A-Za-z0-9-]{1,64}(?: *, *[A-Za-z0-9-]{1,64}){0,63}")


class Origins:
    """The origins of a server.

    Args:
        allowed: Those an operator lists, such as "https://chat.example".
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = frozenset(origin.lower().encode() for origin in allowed)

    def checked(self, values: Sequence[bytes], host: bytes) -> bytes:
        """The listed origin that a request comes from; empty = from no other site.

        Args:
            values: Its Origin headers.
            host: Its Host header, in lower case and checked.

        Raises:
            Refused: It comes from a site that is neither listed nor this server.
        """
        if not values:
            return b""
        origin = values[0].lower()
        if len(values) == 1 and origin in self._allowed:
            return values[0]
        if len(values) > 1 or origin not in (b"http://" + host, b"https://" + host):
            raise Refused(
                "requests that another site makes through a browser are not answered; the operator of this "
                "server can allow its origin"
            )
        return b""


def shown_to(origin: bytes) -> RawHeaders:
    """Headers that let pages of an origin read an answer; none for the empty one."""
    if not origin:
        return []
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _SHOWN),
        (b"vary", b"origin"),
    ]


def preflight(headers: Sequence[tuple[bytes, bytes]]) -> RawHeaders:
    """What a browser is told that asks before it sends a request of a listed origin.

    Args:
        headers: Of its question; the names of headers it wants to send are given back, if they are names.
    """
    wanted = dict(headers).get(b"access-control-request-headers", b"")
    found = [(b"access-control-allow-methods", _METHODS), (b"access-control-max-age", _MAX_AGE_S)]
    return [*found, (b"access-control-allow-headers", wanted)] if _NAMES.fullmatch(wanted) else found


def is_preflight(method: str, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a browser asks what it may send."""
    return method == "OPTIONS" and any(name == b"access-control-request-method" for name, _ in headers)
