"""Clients that leave at any moment, and clients that come with raw bytes: nothing stays behind them.

What is held is read off the server's own metrics, so it is what an operator would see.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest

QUESTION = {"messages": [{"role": "user", "content": "Who are you? " * 40}], "max_tokens": 200}
GAUGES = ("phi4:requests_under_way", "phi4:requests_preparing", "phi4:held_bytes")
GAUGES += ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
SETTLED_S = 10.0
STALE_S = 2.0
"""What the engine counts reaches the metrics within this time."""


@pytest.fixture
def address(server: Any) -> tuple[str, int]:
    parts = urlsplit(server.url)
    return str(parts.hostname), int(parts.port or 0)


def request_bytes(address: tuple[str, int], body: dict[str, Any]) -> bytes:
    """A whole request as it goes over the wire."""
    content = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n"
    head += f"Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def held(server: Any) -> dict[str, float]:
    """What the server holds, by its metrics."""
    text = httpx.get(f"{server.url}/metrics").text
    return {
        name: float(re.findall(rf"^{re.escape(name)}{{.*}} (\S+)$", text, re.MULTILINE)[0]) for name in GAUGES
    }


def settled(server: Any, still_s: float = 0.0) -> dict[str, float]:
    """The same once it has been nothing for so long, or time is up."""
    until = time.monotonic() + SETTLED_S
    since = None
    while time.monotonic() < until:
        found = held(server)
        now = time.monotonic()
        since = None if any(found.values()) else since or now
        if since is not None and now - since >= still_s:
            break
        time.sleep(0.05)  # between two looks
    return found


def leave(address: tuple[str, int], chance: random.Random) -> None:
    """Connect, get as far as chance has it, and go."""
    whole = request_bytes(
        address, QUESTION | {"stream": chance.random() < 0.6, "n": chance.choice([1, 1, 3])}
    )
    phase = chance.choice(["connect", "upload", "sent", "first", "reading"])
    with socket.create_connection(address, timeout=10) as client:
        if phase == "connect":
            return
        sent = whole[: chance.randrange(len(whole))] if phase == "upload" else whole
        client.sendall(sent)
        if phase == "sent":
            time.sleep(chance.random() * 0.05)  # a random moment of the preparation or of the first step
        if phase in ("first", "reading"):
            client.recv(64)
        for _ in range(chance.randrange(20) if phase == "reading" else 0):
            if not client.recv(256):
                break
        if chance.random() < 0.5:  # a reset in place of a farewell
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def leave_often(server: Any, address: tuple[str, int], times: int) -> None:
    question = {"messages": [{"role": "user", "content": "Who are you?"}]}
    expected = httpx.post(f"{server.url}/v1/chat/completions", json=question).json()["choices"]
    for number in range(times):
        leave(address, random.Random(number))
    assert settled(server, STALE_S) == dict.fromkeys(GAUGES, 0.0)
    assert httpx.post(f"{server.url}/v1/chat/completions", json=question).json()["choices"] == expected
    assert httpx.get(f"{server.url}/health/ready").json()["restarts"] == 0


def test_nothing_stays_behind_those_who_leave(server: Any, address: tuple[str, int]) -> None:
    leave_often(server, address, 300)


@pytest.mark.slow
def test_nothing_stays_behind_thousands_who_leave(server: Any, address: tuple[str, int]) -> None:
    leave_often(server, address, 3000)


RAW: dict[str, Callable[[bytes], bytes]] = {
    "two lengths": lambda r: r.replace(b"Content-Length:", b"Content-Length: 5\r\nContent-Length:"),
    "length and chunks": lambda r: r.replace(
        b"Content-Length:", b"Transfer-Encoding: chunked\r\nContent-Length:"
    ),
    "unknown transfer": lambda r: r.replace(b"Content-Length:", b"Transfer-Encoding: xchunked\r\nX:"),
    "no length that is one": lambda r: re.sub(rb"Content-Length: \d+", b"Content-Length: ten", r),
    "negative length": lambda r: re.sub(rb"Content-Length: \d+", b"Content-Length: -1", r),
    "space before colon": lambda r: r.replace(b"Content-Type:", b"X : a\r\nContent-Type:"),
    "NUL in a header": lambda r: r.replace(b"Content-Type:", b"X: a\0b\r\nContent-Type:"),
    "two hosts": lambda r: r.replace(b"Content-Type:", b"Host: evil.example\r\nContent-Type:"),
    "no host": lambda r: re.sub(rb"Host: .*?\r\n", b"", r),
    "other host": lambda r: re.sub(rb"Host: .*?\r\n", b"Host: evil.example\r\n", r),
    "absolute target": lambda r: r.replace(b"POST /v1", b"POST http://evil.example/v1"),
    "no version": lambda r: r.replace(b" HTTP/1.1", b""),
    "a megabyte of header": lambda r: r.replace(
        b"Content-Type:", b"X: " + b"a" * 2**20 + b"\r\nContent-Type:"
    ),
    "10,000 headers": lambda r: r.replace(b"Content-Type:", b"X: a\r\n" * 10_000 + b"Content-Type:"),
    "not HTTP": lambda r: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
}


def exchanged(address: tuple[str, int], sent: bytes, hang_up: bool = True) -> bytes:
    """All that comes back on a connection that sends this, and perhaps says that nothing follows."""
    answer = b""
    with socket.create_connection(address, timeout=10) as client:
        # What is refused before it has been read is cut off; the answer to it has come before that.
        with contextlib.suppress(OSError):
            client.sendall(sent)
            if hang_up:
                client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while piece := client.recv(65_536):
                answer += piece
    return answer


SMUGGLED = b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize("name", RAW)
def test_malformed_requests_are_refused_and_answered_once(
    server: Any, address: tuple[str, int], name: str
) -> None:
    """Whatever stands behind such a request on the same connection is not taken for a second one."""
    answer = exchanged(address, RAW[name](request_bytes(address, QUESTION)) + SMUGGLED)
    assert re.match(rb"HTTP/1.1 4\d\d ", answer), answer[:200]
    assert answer.count(b"HTTP/1.1 ") == 1 and b'"version"' not in answer
    assert settled(server) == dict.fromkeys(GAUGES, 0.0)


def test_a_folded_header_is_one_header(server: Any, address: tuple[str, int]) -> None:
    """The only old form that is still to be read; what is folded into it is no header of its own."""
    folded = b"X: a\r\n Host: evil.example\r\nContent-Type:"
    sent = request_bytes(address, QUESTION).replace(b"Content-Type:", folded)
    answer = exchanged(address, sent + SMUGGLED, hang_up=False)
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.count(b"HTTP/1.1 ") == 1
    assert settled(server) == dict.fromkeys(GAUGES, 0.0)
