"""Server-sent events: one response class that stops the work when its reader has gone.

`EventStream` sends what an iterator gives, a comment now and then while nothing comes (so that proxies keep
the connection), and watches for the client to leave. A client that does not read is cut off: what it does not
take waits in the engine's bounded queue, never here. `unless_gone` does the same watching for plain answers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
KEEP_ALIVE_S = 15.0

Found = TypeVar("Found")


def sse(data: Any, event: str = "") -> bytes:
    """One event. ASCII only: some readers split lines at more characters than a newline."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(data, separators=(',', ':'), allow_nan=False)}\n\n".encode("ascii")


class EventStream(Response):
    """Sends events until they end or the client goes.

    Args:
        pieces: What to send; closed in every case.
        send_timeout_s: How long the client may take to accept one piece before it is cut off.
        keep_alive_s: Silence after which a comment is sent.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        send_timeout_s: float,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        self._pieces = pieces
        self._send_timeout_s = send_timeout_s
        self._keep_alive_s = keep_alive_s
        self.status_code = 200
        self.background = None
        # Proxies such as nginx would collect the events otherwise.
        self.init_headers({"x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        sender = _PieceSender(send, self._send_timeout_s)
        pump = asyncio.create_task(self._pump(sender))
        beside = [asyncio.create_task(_gone(receive)), asyncio.create_task(self._keep_alive(sender))]
        try:
            await asyncio.wait((pump, *beside), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _stop(pump, *beside)
        with suppress(OSError, asyncio.CancelledError):  # the client has gone, or reads too slowly
            pump.result()

    async def _pump(self, sender: _PieceSender) -> None:
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                await sender.send(piece)
        await sender.send(b"", last=True)

    async def _keep_alive(self, sender: _PieceSender) -> None:
        with suppress(OSError):
            while True:
                wait_s = sender.last_s + self._keep_alive_s - asyncio.get_running_loop().time()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                else:
                    await sender.send(KEEP_ALIVE)


class _PieceSender:
    """Sends pieces one after the other, each within its time."""

    def __init__(self, send: Send, timeout_s: float) -> None:
        self._send = send
        self._timeout_s = timeout_s
        self._lock = asyncio.Lock()
        self.last_s = asyncio.get_running_loop().time()

    async def send(self, piece: bytes, last: bool = False) -> None:
        """Send one piece.

        Raises:
            OSError: The client has gone, or (its subclass TimeoutError) did not take the piece in time.
        """
        async with self._lock, asyncio.timeout(self._timeout_s):
            await self._send({"type": "http.response.body", "body": piece, "more_body": not last})
        self.last_s = asyncio.get_running_loop().time()


async def unless_gone(request: Request, work: Coroutine[Any, Any, Found]) -> Found:
    """The result of some work, which is cancelled when the client goes; the body has been read before.

    Raises:
        ClientDisconnect: The client has gone.
    """
    task = asyncio.create_task(work)
    watch = asyncio.create_task(_gone(request.receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        await _stop(task, watch)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stop(*tasks: asyncio.Task[Any]) -> None:
    """Cancel what still runs and wait for it to end, so that nothing runs on behind an answer."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
