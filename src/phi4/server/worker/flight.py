"""One request's answers on their way from the engine to a client: a short queue with an end.

What a client does not read stays here, up to a limit; beyond it the request is given up, since its memory is
everybody's. An error comes after everything that was said before it.
"""

from __future__ import annotations

import asyncio
from collections import deque

from phi4.errors import Phi4Error
from phi4.server.failures import DeadlineExceeded
from phi4.server.worker.values import ServerEvent


class Flight:
    """The answers of one request.

    Args:
        key: Whose they are.
        most: Events kept for a client that reads slowly.

    Attributes:
        ids: Names of its answers that are in the engine.
    """

    def __init__(self, key: str, most: int) -> None:
        self.key = key
        self.ids: set[int] = set()
        self._most = most
        self._events: deque[ServerEvent] = deque()
        self._error: Phi4Error | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._first: asyncio.TimerHandle | None = None

    @property
    def failed(self) -> bool:
        """Whether an error ended it."""
        return self._error is not None

    def put(self, event: ServerEvent) -> None:
        """Something was said; too much unread fails the flight."""
        if self._first is not None:
            self._first.cancel()
        if len(self._events) >= self._most:
            self.fail(DeadlineExceeded("the client reads too slowly; the answer was given up"))
        elif self._error is None:
            self._events.append(event)
            self._wake()

    def fail(self, error: Phi4Error) -> None:
        """Nothing more will be said; the first error counts."""
        if self._error is None:
            self._error = error
            self._wake()

    async def next(self) -> ServerEvent:
        """The next event.

        Raises:
            Phi4Error: The one it failed with.
        """
        while not self._events:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._events.popleft()

    def end_at(self, deadline: float) -> None:
        """Fail at this time of the loop."""
        error = DeadlineExceeded("the answer did not get done in the time it had")
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_at(deadline, self.fail, error))

    def begin_within(self, seconds: float) -> None:
        """Fail if nothing is said for so long from now on."""
        if self._first is None:
            error = DeadlineExceeded("the answer did not begin in the time it had")
            self._first = asyncio.get_running_loop().call_later(seconds, self.fail, error)
            self._timers.append(self._first)

    def close(self) -> None:
        """Stop the clocks."""
        for timer in self._timers:
            timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
