"""Whose answer begins next: a fair queue between those who are let in and the engine.

    await turns.take(key, cost)         # waits for its turn
    turns.give(key)                     # its answer has ended
    turns.wait_s(key, coming)           # how long a newcomer would wait

The engine works on so many answers at a time; the others wait here. Each key has its own line, and lines are
served by deficit round robin: every time a line comes to the front it may spend so many tokens of work, and
what it does not spend it keeps. A key that sends a thousand requests therefore waits behind itself.

Source: Shreedhar and Varghese, "Efficient fair queueing using deficit round robin", SIGCOMM 1995.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass

from phi4.server.waits import Waits


@dataclass(eq=False)
class _Waiting:
    """One request in its line: tokens of work, places it takes in the engine, and what it waits for.

    Attributes:
        waited: Its turn did not come at once.
    """

    cost: int
    width: int
    turn: asyncio.Future[None]
    waited: bool = False


class Turns:
    """Places in the engine and the lines in front of it. Used from one asyncio loop.

    Args:
        capacity: Places.
        quantum: Tokens of work a line may spend each time it comes to the front.
        most_per_key: Places one key may have; None = all. What is wider than that still runs, alone.
        waits: Learns how long turns take to come.
    """

    def __init__(
        self, capacity: int, quantum: int, most_per_key: int | None = None, waits: Waits | None = None
    ) -> None:
        self._capacity = capacity
        self._quantum = quantum
        self._most = capacity if most_per_key is None else most_per_key
        self._lines: dict[str, deque[_Waiting]] = {}  # in the order in which they come to the front
        self._credit: dict[str, int] = {}
        self._taken: dict[str, int] = {}
        self._ahead: Counter[str] = Counter()  # tokens of work in each line
        self._waits = waits or Waits()

    @property
    def running(self) -> int:
        """Places taken."""
        return sum(self._taken.values())

    @property
    def waiting(self) -> int:
        """Places waited for."""
        return sum(entry.width for line in self._lines.values() for entry in line)

    def expect(self, tokens_per_s: float) -> None:
        """See `Waits.expect`."""
        self._waits.expect(tokens_per_s)

    def places(self, key: str) -> int:
        """Places of a key, taken and waited for."""
        waiting = sum(entry.width for entry in self._lines.get(key, ()))
        return self._taken.get(key, 0) + waiting

    def wait_s(self, key: str, coming: int) -> float:
        """How long a request of this key that comes now would wait for its turn, as far as is known.

        Args:
            key: Whose it is.
            coming: Requests of the key that are not in its line yet, but will be before this one.
        """
        if self.running + coming < self._capacity and not self._lines:
            return 0.0
        own = self._ahead[key] + coming * self._waits.usual_tokens
        lines = len(self._lines) + (key not in self._lines)
        others = self._ahead.total() - self._ahead[key]
        return self._waits.seconds(own + min(others, (lines - 1) * own))

    async def take(self, key: str, cost: int, width: int = 1) -> None:
        """Wait for a turn. Cancelling the wait leaves the line.

        Args:
            key: Whose it is.
            cost: Tokens of work, at least 1.
            width: Places it takes.
        """
        entry = _Waiting(max(cost, 1), width, asyncio.get_running_loop().create_future())
        self._lines.setdefault(key, deque()).append(entry)
        self._credit.setdefault(key, 0)
        self._ahead[key] += entry.cost
        self._grant()
        if not entry.turn.done():
            entry.waited = True
            self._waits.began()
        try:
            await entry.turn
        except asyncio.CancelledError:
            if entry.turn.done() and not entry.turn.cancelled():
                self.give(key, width)  # the turn came in the same moment
            else:
                self._leave(key, entry)
            raise

    def give(self, key: str, width: int = 1) -> None:
        """Give places back."""
        left = self._taken[key] - width
        assert left >= 0, "more places given back than taken"
        if left:
            self._taken[key] = left
        else:
            del self._taken[key]
        self._grant()

    def _leave(self, key: str, entry: _Waiting) -> None:
        line = self._lines.get(key, deque())
        if entry in line:
            line.remove(entry)
            self._left_line(key, entry)
        self._grant()  # a wide one at the front may have held up those behind it

    def _grant(self) -> None:
        """Let in whoever may go now."""
        held_up = 0
        while held_up < len(self._lines):
            key, line = next(iter(self._lines.items()))
            entry = line[0]
            if entry.turn.done():  # cancelled, and its task has not run yet
                line.popleft()
                self._left_line(key, entry)
                continue
            if self.running and self.running + entry.width > self._capacity:
                return  # nobody overtakes a wide one, or it would wait for ever
            taken = self._taken.get(key, 0)
            if taken and taken + entry.width > self._most:
                self._to_the_back(key)
                held_up += 1
                continue
            held_up = 0
            if len(self._lines) > 1 and self._credit[key] < entry.cost:
                self._credit[key] += self._quantum
                self._to_the_back(key)
                continue
            self._credit[key] = max(0, self._credit[key] - entry.cost)
            self._taken[key] = taken + entry.width
            line.popleft()
            if entry.waited:
                self._waits.let_in(entry.cost, others_wait=bool(line) or len(self._lines) > 1)
            self._left_line(key, entry)
            entry.turn.set_result(None)

    def _to_the_back(self, key: str) -> None:
        self._lines[key] = self._lines.pop(key)

    def _left_line(self, key: str, entry: _Waiting) -> None:
        self._ahead[key] -= entry.cost
        if not self._lines[key]:
            del self._lines[key], self._credit[key], self._ahead[key]
        if not self._lines:
            self._waits.ended()
