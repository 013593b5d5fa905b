"""One request's answers on their way from the engine to a client: a short queue with an end.

What comes in quick succession is handed on together: a small model draws tokens faster than anybody reads,
and each piece costs a line of JSON and a write to a socket. What a client does not read stays here, up to a
limit; beyond it the request is given up, since its memory is everybody's. An error comes after everything
that was said before it.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from phi4.errors import Phi4Error
from phi4.server.failures import DeadlineExceeded
from phi4.server.worker.values import ServerEvent, ToolCallDelta


class Flight:
    """The answers of one request.

    Args:
        key: Whose they are.
        most: Events kept for a client that reads slowly.
        interval_s: Least time between what is handed on; first words and last ones never wait.

    Attributes:
        ids: Names of its answers that are in the engine.
    """

    def __init__(self, key: str, most: int, interval_s: float = 0.0) -> None:
        self.key = key
        self.ids: set[int] = set()
        self._most = most
        self._interval_s = interval_s
        self._came: list[ServerEvent] = []
        self._handing: deque[ServerEvent] = deque()  # gathered from what came
        self._next_s = -math.inf  # time of the loop from which on more may be gathered
        self._due: asyncio.TimerHandle | None = None
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
        if len(self._came) + len(self._handing) >= self._most:
            self.fail(DeadlineExceeded("the client reads too slowly; the answer was given up"))
        elif self._error is None:
            self._came.append(event)
            if event.finish_reason is not None:
                self._next_s = -math.inf
            self._wake()

    def fail(self, error: Phi4Error) -> None:
        """Nothing more will be said; the first error counts."""
        if self._error is None:
            self._error = error
            self._wake()

    async def next(self) -> ServerEvent:
        """The next event of an answer, with those of the same answer that came right after it.

        Raises:
            Phi4Error: The one it failed with.
        """
        while not self._handing and not self._gather():
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            self._wake()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._handing.popleft()

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
        if self._due is not None:
            self._due.cancel()

    def _gather(self) -> bool:
        """Make what came ready to be handed on, a piece for each answer; False = nothing yet."""
        if not self._came or self._wait_s() > 0:
            return False
        answers: dict[int, list[ServerEvent]] = {}
        for event in self._came:
            answers.setdefault(event.index, []).append(event)
        self._handing.extend(_joined(events) for events in answers.values())
        self._came.clear()
        self._next_s = asyncio.get_running_loop().time() + self._interval_s
        return True

    def _wait_s(self) -> float:
        """How long what came has to wait for more."""
        if self._error is not None:
            return 0.0
        return self._next_s - asyncio.get_running_loop().time()

    def _wake(self) -> None:
        """Wake the reader if there is anything for it, now or when it is time."""
        if self._waiter is None or self._waiter.done() or not (self._came or self._error):
            return
        wait_s = self._wait_s()
        if wait_s <= 0:
            self._waiter.set_result(None)
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(wait_s, self._ring)

    def _ring(self) -> None:
        self._due = None
        self._wake()


def _joined(events: Sequence[ServerEvent]) -> ServerEvent:
    """Pieces of one answer that follow each other as one piece; at least one, and none after the last."""
    if len(events) == 1:
        return events[0]
    calls: list[ToolCallDelta] = []
    for piece in (piece for event in events for piece in event.tool_calls):
        if calls and calls[-1].index == piece.index and not piece.name:
            calls[-1] = replace(calls[-1], arguments=calls[-1].arguments + piece.arguments)
        else:
            calls.append(piece)
    return replace(
        events[-1],
        text="".join(event.text for event in events),
        tool_calls=tuple(calls),
        logprobs=tuple(scored for event in events for scored in event.logprobs),
    )
