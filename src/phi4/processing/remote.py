"""Fetch one file over http(s) without becoming anybody's way into a private network.

`fetch` is reached only through `open_media(..., allow_remote=True)`. It resolves the host once, refuses the
URL unless every address is a public one, and dials exactly the address it checked; each redirect starts
again from the beginning. The body is counted while it streams, compressed bodies are refused, and one
deadline covers everything after name resolution, however slowly the bytes come. Left out: proxies, cookies.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from urllib.parse import SplitResult, urljoin, urlsplit

from phi4.errors import InvalidMedia

MAX_REDIRECTS = 3
_BLOCK_BYTES = 2**16
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Transition ranges carry an IPv4 address inside, which could be a private one: Teredo and 6to4.
_TRANSITION = (ipaddress.ip_network("2001::/32"), ipaddress.ip_network("2002::/16"))
# Looks public, is the metadata service of a large cloud.
_PLATFORM = ipaddress.ip_address("168.63.129.16")
# Parsers disagree about backslashes, white space, control characters and userinfo: none is allowed.
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.\-:\[\]]+([/?][!-\[\]-~]*)?", re.IGNORECASE)


def is_public(address: str) -> bool:
    """Whether an address is on the public internet: not loopback, private, link-local, multicast, tunnel."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inside = ip in _GLOBAL_UNICAST and not any(ip in network for network in _TRANSITION)
        return inside and ip.is_global and not ip.is_multicast
    return ip.is_global and not ip.is_multicast and ip != _PLATFORM


def fetch(url: str, max_bytes: int, timeout_s: float, permit: Callable[[str], bool] = is_public) -> bytes:
    """Download a file.

    Args:
        url: http or https, without user name, white space or backslash.
        max_bytes: The download stops above this many bytes, whatever the server announced.
        timeout_s: For the whole download, redirects included.
        permit: Decides from the resolved address whether it may be dialled.

    Raises:
        InvalidMedia: Refused URL or address, no answer, wrong status, too big, too slow; names no address.
    """
    deadline = time.monotonic() + timeout_s
    for _ in range(MAX_REDIRECTS + 1):
        body, location = _fetch_hop(_checked_url(url), max_bytes, deadline, permit)
        if location is None:
            return body
        url = _joined(url, location)
    raise InvalidMedia(f"the URL redirects more than {MAX_REDIRECTS} times: give the final address")


def _joined(url: str, location: str) -> str:
    """Where a redirect leads, not checked yet."""
    try:
        return urljoin(url, location)
    except ValueError:
        raise _not_plain() from None


def _checked_url(url: str) -> SplitResult:
    if not _PLAIN_URL.fullmatch(url):
        raise _not_plain()
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise InvalidMedia("the URL has no valid host and port: check it")
    return parts


def _fetch_hop(
    url: SplitResult, max_bytes: int, deadline: float, permit: Callable[[str], bool]
) -> tuple[bytes, str | None]:
    """Do one request -> (body, None), or (nothing, where it redirects to)."""
    try:
        connection = _connect(url, deadline, permit)
    except (OSError, UnicodeError):
        raise InvalidMedia("the host of the URL cannot be reached: check the URL, or give the file") from None
    # A socket timeout starts anew with each byte; closing from outside ends a drip as well.
    watchdog = threading.Timer(max(0.0, deadline - time.monotonic()), _shut, [connection.sock])
    watchdog.daemon = True
    watchdog.start()
    try:
        if isinstance(connection.sock, ssl.SSLSocket):
            connection.sock.do_handshake()
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.request("GET", target, headers={"Accept-Encoding": "identity", "User-Agent": "phi4"})
        return _read_answer(connection.getresponse(), max_bytes, deadline)
    except (OSError, http.client.HTTPException, ValueError):
        if time.monotonic() >= deadline:
            raise _too_slow() from None
        raise InvalidMedia("the server of the URL broke off or sent nonsense: download the file") from None
    finally:
        watchdog.cancel()
        connection.close()


def _connect(url: SplitResult, deadline: float, permit: Callable[[str], bool]) -> http.client.HTTPConnection:
    """Resolve once, check every address, dial the first: no second look-up can give another one."""
    secure, host = url.scheme.lower() == "https", url.hostname or ""
    port = url.port or (443 if secure else 80)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if not all("%" not in address and permit(address) for address in addresses):
        raise InvalidMedia("the URL leads into a private network, which is never fetched from: give the file")
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise _too_slow()
    connection = http.client.HTTPConnection(host, port)
    connection.sock = socket.create_connection((addresses[0], port), timeout=remaining)
    if secure:
        connection.sock = ssl.create_default_context().wrap_socket(
            connection.sock, server_hostname=host, do_handshake_on_connect=False
        )
    return connection


def _read_answer(
    answer: http.client.HTTPResponse, max_bytes: int, deadline: float
) -> tuple[bytes, str | None]:
    location = answer.getheader("Location")
    if answer.status in (301, 302, 303, 307, 308) and location:
        return b"", location
    if answer.status != 200:
        raise InvalidMedia(f"the server of the URL answered with status {answer.status}: check the URL")
    if answer.getheader("Content-Encoding", "identity").lower() != "identity":
        raise InvalidMedia("the server of the URL sent a compressed body: download the file")
    announced = answer.length
    body = bytearray()
    while block := answer.read1(_BLOCK_BYTES):
        body += block
        if len(body) > max_bytes:
            raise InvalidMedia(f"the file behind the URL is over the limit of {max_bytes:,} bytes")
    if time.monotonic() >= deadline:
        raise _too_slow()
    if announced is not None and len(body) < announced:
        raise http.client.IncompleteRead(bytes(body), announced - len(body))
    return bytes(body), None


def _shut(connected: socket.socket) -> None:
    try:
        # Past the TLS layer: its own shutdown would race with a read in progress.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
    except OSError:
        return  # already closed: the answer came in time


def _too_slow() -> InvalidMedia:
    return InvalidMedia("the file behind the URL did not arrive in time: download it and give the file")


def _not_plain() -> InvalidMedia:
    return InvalidMedia("the URL is not plain http(s): no user name, white space or backslash, ASCII only")
