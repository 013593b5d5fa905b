"""What may be under way at a time, decided before any work is done for it.

    ticket = admission.enter(key)       # 429, 503, or a ticket
    ticket.hold(len(chunk))             # bytes of the body as they come
    ticket.charge(tokens, num_bytes)    # what it turned out to be
    ticket.close()

Requests, bytes and tokens are counted over all keys and, when there are keys, for each: one key gets at most
half of the bytes and tokens. All counts are returned when the ticket closes, whatever happened to the
request. A count says little about time: what one model answers in a second takes another ten minutes. So a
request that would wait too long for its turn, as turns went lately, is refused as well.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from types import TracebackType

from phi4.errors import InvalidRequest
from phi4.server.failures import Draining, Overloaded, ServerFailure, TooManyRequests
from phi4.server.settings import ServerSettings
from phi4.server.turns import Turns

_MOST_RETRY_S = 60


class Ticket:
    """One request's place among those under way. A context manager; closing twice does nothing.

    Attributes:
        key: Whose it is.
        deadline: `time.monotonic()`, which is the loop's time, at which the request is too late.
        held_bytes: Bytes counted for it.
        held_tokens: Tokens counted for it.
    """

    def __init__(self, admission: Admission, key: str, deadline: float) -> None:
        self.key = key
        self.deadline = deadline
        self.began = time.monotonic()
        self.held_bytes = 0
        self.held_tokens = 0
        self._admission: Admission | None = admission

    def __enter__(self) -> Ticket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def hold(self, num_bytes: int) -> None:
        """Count bytes that are being kept for the request, before keeping them.

        Raises:
            TooManyRequests: The key's requests hold too many.
            Overloaded: All requests together do.
        """
        self._open().count_bytes(self, num_bytes)

    def charge(self, tokens: int, num_bytes: int) -> None:
        """Count the work a request turned out to be; `num_bytes` of it take the place of those of its body.

        Raises:
            InvalidRequest: It is more than the server would ever do for one request.
            TooManyRequests: The key's requests are too much together.
            Overloaded: All requests are.
        """
        admission = self._open()
        admission.count_bytes(self, num_bytes - self.held_bytes)
        admission.count_tokens(self, tokens - self.held_tokens)

    def remaining(self) -> float:
        """Seconds until the deadline; 0 = it has passed."""
        return max(0.0, self.deadline - time.monotonic())

    def close(self) -> None:
        """The request has ended."""
        if self._admission is not None:
            admission, self._admission = self._admission, None
            admission.leave(self)

    def _open(self) -> Admission:
        assert self._admission is not None, "the ticket is closed"
        return self._admission


class Admission:
    """Counts what is under way and refuses what is too much.

    Args:
        settings: The limits.
        turns: Tell how long a turn takes to come.
    """

    def __init__(self, settings: ServerSettings, turns: Turns) -> None:
        self._settings = settings
        self._turns = turns
        self._shared = bool(settings.key_digests)
        self._requests: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()
        self.draining = False
        self.accepted_total = 0
        self.rejected_total = 0

    @property
    def under_way(self) -> int:
        """Tickets that are open."""
        return self._requests.total()

    @property
    def held_bytes(self) -> int:
        """Bytes counted for them."""
        return self._bytes.total()

    @property
    def held_tokens(self) -> int:
        """Tokens counted for them."""
        return self._tokens.total()

    def enter(self, key: str) -> Ticket:
        """Let a request in, or not, at once.

        Raises:
            Draining: The server is shutting down.
            TooManyRequests: The key has too many requests under way.
            Overloaded: There are too many in all.
        """
        limits = self._settings
        if self.draining:
            raise self._rejected(Draining("the server is shutting down; ask another one", 5))
        if self.under_way >= limits.max_requests:
            raise self._rejected(
                Overloaded(f"{limits.max_requests} requests are under way already", self._retry_after_s(key))
            )
        if self._shared and self._requests[key] >= limits.max_requests_per_key:
            raise self._rejected(
                TooManyRequests(
                    f"{limits.max_requests_per_key} requests of this key are under way already",
                    self._retry_after_s(key),
                )
            )
        wait_s = self._wait_s(key)
        if wait_s > limits.max_wait_s:
            # In a line of its own, a key waits behind itself alone.
            kind = TooManyRequests if self._shared else Overloaded
            message = f"a request that comes now would wait about {wait_s:.0f} s for its turn"
            raise self._rejected(kind(message, self._retry_after_s(key)))
        self._requests[key] += 1
        self.accepted_total += 1
        self._empty.clear()
        return Ticket(self, key, time.monotonic() + limits.request_timeout_s)

    def leave(self, ticket: Ticket) -> None:
        """Return everything that was counted for a ticket; called by the ticket."""
        for counts, amount in (
            (self._requests, 1),
            (self._bytes, ticket.held_bytes),
            (self._tokens, ticket.held_tokens),
        ):
            counts[ticket.key] -= amount
            if not counts[ticket.key]:
                del counts[ticket.key]  # keys come from outside: none may stay behind
        if not self.under_way:
            self._empty.set()

    def count_bytes(self, ticket: Ticket, more: int) -> None:
        """Count bytes for a ticket; see `Ticket.hold`."""
        self._check(self._bytes, ticket.key, more, self._settings.max_held_bytes, "bytes")
        self._bytes[ticket.key] += more
        ticket.held_bytes += more

    def count_tokens(self, ticket: Ticket, more: int) -> None:
        """Count tokens for a ticket; see `Ticket.charge`."""
        most = self._settings.max_waiting_tokens
        if ticket.held_tokens + more > most:
            raise InvalidRequest(
                f"prompt and answers of this request may take {ticket.held_tokens + more} tokens together, "
                f"at most {most} are possible; shorten the prompt, or ask for fewer or shorter answers"
            )
        self._check(self._tokens, ticket.key, more, most, "tokens")
        self._tokens[ticket.key] += more
        ticket.held_tokens += more

    def _check(self, counts: Counter[str], key: str, more: int, most: int, what: str) -> None:
        if more <= 0:
            return
        if counts.total() + more > most:
            raise self._rejected(
                Overloaded(f"the requests under way take all {what} there are", self._retry_after_s(key))
            )
        others = counts.total() - counts[key]
        if self._shared and others and counts[key] + more > most // 2:
            raise self._rejected(
                TooManyRequests(
                    f"this key's requests under way take half of all {what} there are",
                    self._retry_after_s(key),
                )
            )

    def refused(self, failure: ServerFailure) -> ServerFailure:
        """Count a refusal decided elsewhere, and hand it back to be raised."""
        return self._rejected(failure)

    def _rejected(self, failure: ServerFailure) -> ServerFailure:
        self.rejected_total += 1
        return failure

    def _wait_s(self, key: str) -> float:
        """How long one that comes now would wait for its turn, behind those that are on their way to it."""
        return self._turns.wait_s(key, max(0, self._requests[key] - self._turns.places(key)))

    def _retry_after_s(self, key: str) -> int:
        """When the wait is likely to be one a request may have."""
        over_s = self._wait_s(key) - self._settings.max_wait_s
        return max(1, min(_MOST_RETRY_S, math.ceil(over_s)))

    def drain(self) -> None:
        """Let nobody in from now on."""
        self.draining = True

    async def empty(self) -> None:
        """Wait until no ticket is open."""
        await self._empty.wait()
