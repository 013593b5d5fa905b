"""Streams end when their reader goes, keep quiet connections open, and cut off who never reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from phi4.server.http.streaming import DONE, KEEP_ALIVE, EventStream, sse, unless_gone

SCOPE = {"type": "http", "headers": []}


async def never() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


class Source:
    """Pieces, and whether the generator that gives them was closed."""

    def __init__(self, *pieces: bytes, wait: asyncio.Event | None = None) -> None:
        self.pieces, self.wait, self.closed = pieces, wait, False

    async def give(self) -> AsyncGenerator[bytes, None]:
        try:
            for piece in self.pieces:
                yield piece
            if self.wait is not None:
                await self.wait.wait()
        finally:
            self.closed = True


async def sent_by(stream: EventStream, receive: Any = never) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await stream(SCOPE, receive, send)
    return sent


def test_pieces_are_sent_in_order_and_the_end_is_marked() -> None:
    source = Source(b"a", b"b")
    sent = asyncio.run(sent_by(EventStream(source.give(), 1.0)))
    assert [message.get("body") for message in sent[1:]] == [b"a", b"b", b""]
    assert [message["more_body"] for message in sent[1:]] == [True, True, False]
    headers = dict(sent[0]["headers"])
    assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert headers[b"x-accel-buffering"] == b"no"
    assert source.closed


def test_client_that_goes_stops_the_source() -> None:
    async def scene() -> tuple[Source, list[dict[str, Any]]]:
        gone, source = asyncio.Event(), Source(b"a", wait=asyncio.Event())

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        task = asyncio.create_task(sent_by(EventStream(source.give(), 1.0), receive))
        await asyncio.sleep(0)
        gone.set()
        return source, await task

    source, sent = asyncio.run(asyncio.wait_for(scene(), 10))
    assert source.closed and sent[-1]["more_body"] is True


def test_silence_is_filled_with_comments() -> None:
    async def scene() -> list[bytes]:
        release = asyncio.Event()
        source = Source(b"a", wait=release)
        sent: list[bytes] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message.get("body", b""))
            if sent.count(KEEP_ALIVE) == 3:
                release.set()

        await EventStream(source.give(), 1.0, keep_alive_s=0.001)(SCOPE, never, send)
        return sent

    sent = asyncio.run(scene())
    assert sent.count(KEEP_ALIVE) >= 3 and sent[-1] == b""


def test_reader_that_takes_nothing_is_cut_off() -> None:
    async def scene() -> Source:
        source = Source(b"a", b"b")

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        await EventStream(source.give(), 0.01)(SCOPE, never, send)
        return source

    assert asyncio.run(asyncio.wait_for(scene(), 10)).closed


def test_connection_that_breaks_is_no_fault_of_ours() -> None:
    async def scene() -> Source:
        source = Source(b"a", b"b")

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body":
                raise OSError("broken pipe")

        await EventStream(source.give(), 1.0)(SCOPE, never, send)
        return source

    assert asyncio.run(scene()).closed


def test_fault_of_the_source_is_not_hidden() -> None:
    async def give() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        asyncio.run(sent_by(EventStream(give(), 1.0)))


def test_plain_work_is_cancelled_when_the_client_goes() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        asyncio.run(asyncio.wait_for(unless_gone(Request(SCOPE, receive), work()), 10))
    assert ended == ["work"]


def test_plain_work_gives_its_result_or_its_error() -> None:
    async def fine() -> int:
        return 7

    async def bad() -> int:
        raise KeyError("x")

    assert asyncio.run(unless_gone(Request(SCOPE, never), fine())) == 7
    with pytest.raises(KeyError):
        asyncio.run(unless_gone(Request(SCOPE, never), bad()))


def test_event_is_one_line_of_ascii() -> None:
    value = {"text": "a\nb\r\u2028\u0085 grüße 😀"}
    event = sse(value, "kind")
    head, data, *rest = event.decode("ascii").split("\n")
    assert head == "event: kind" and rest == ["", ""]
    assert json.loads(data.removeprefix("data: ")) == value
    assert DONE == b"data: [DONE]\n\n"
