"""Connections that take too long to ask anything, and more of them than there is room for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvicorn

from phi4.errors import InvalidRequest
from phi4.server.http.protocol import patient_protocol
from phi4.server.serving import listen

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body; slowly when asked for /slow."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    if scope["path"] == "/slow":
        await asyncio.sleep(0.8)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class Quiet(uvicorn.Server):
    """A server that leaves signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@contextlib.asynccontextmanager
async def serving(header_timeout_s: float = 0.4, max_connections: int = 3) -> AsyncIterator[int]:
    taken = listen("127.0.0.1", 0)
    protocol = patient_protocol(header_timeout_s, max_connections)
    server = Quiet(uvicorn.Config(app, http=protocol, lifespan="off", log_config=None, ws="none"))
    running = asyncio.create_task(server.serve(sockets=[taken]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield taken.getsockname()[1]
    finally:
        server.should_exit = True
        await running


def check(work: Callable[[int], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def run() -> None:
        async with asyncio.timeout(10), serving(**options) as port:
            await work(port)

    asyncio.run(run())


async def closed_after(reader: asyncio.StreamReader) -> float:
    """Seconds until the server closes."""
    began = asyncio.get_running_loop().time()
    with contextlib.suppress(ConnectionResetError):
        while await reader.read(1000):
            pass
    return asyncio.get_running_loop().time() - began


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask once and read the answer."""
    writer.write(GET)
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")


def test_a_head_that_never_comes_whole_is_not_waited_for() -> None:
    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        closed = asyncio.create_task(closed_after(reader))
        writer.write(b"GET /")
        while not closed.done():
            writer.write(b"x")  # what comes bit by bit has no more time than what does not come
            await asyncio.sleep(0.02)
        assert await closed < 1.0
        writer.close()

    check(work)


def test_a_connection_that_says_nothing_is_closed() -> None:
    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert 0.2 < await closed_after(reader) < 1.5
        writer.close()

    check(work)


def test_the_second_head_on_a_connection_has_a_deadline_too() -> None:
    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await answered(reader, writer)
        writer.write(GET[:10])
        assert await closed_after(reader) < 1.0
        writer.close()

    check(work)


def test_answers_and_bodies_are_not_hurried() -> None:
    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
        for _ in range(4):
            await asyncio.sleep(0.2)
            writer.write(b"x")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.close()

    check(work)


def test_connections_beyond_the_limit_are_closed_and_those_inside_go_on() -> None:
    async def work(port: int) -> None:
        inside = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for connection in inside:
            await answered(*connection)  # so it is known to the server
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await closed_after(reader) < 0.3
        writer.close()
        for connection in inside:
            await answered(*connection)
            connection[1].close()

    check(work, header_timeout_s=5.0)


def test_the_port_is_taken_before_anything_is_loaded() -> None:
    with listen("127.0.0.1", 0) as first:
        first.listen()
        port = first.getsockname()[1]
        assert port > 0
        with pytest.raises(InvalidRequest, match="choose another --port"):
            listen("127.0.0.1", port)


def test_an_address_that_cannot_be_had_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        listen("203.0.113.7", 0)
