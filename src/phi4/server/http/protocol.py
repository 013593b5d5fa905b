"""HTTP connections with patience that ends: for heads that never come whole, and for too many at a time.

uvicorn waits for the head of a request as long as a client likes; here one has a deadline, the first as well
as those that follow on the same connection. Bodies and answers have deadlines of their own in the routes.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol


class PatientProtocol(H11Protocol):
    """uvicorn's protocol, which closes what takes too long to ask anything; see `patient_protocol`."""

    header_timeout_s: ClassVar[float]
    max_connections: ClassVar[int]
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client has come."""
        if len(self.connections) >= self.max_connections:
            transport.abort()
            return
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._stop_waiting()
        if self in self.connections:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """It has sent something: once that is a whole head, the deadline is off."""
        super().data_received(data)
        if self._answering:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """An answer has gone, and the next head has a deadline again."""
        super().on_response_complete()
        if not self._answering:
            self._wait()

    @property
    def _answering(self) -> bool:
        """Whether the head of a request has come whose answer has not gone."""
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def _wait(self) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(self.header_timeout_s, self._too_late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def patient_protocol(header_timeout_s: float, max_connections: int) -> type[PatientProtocol]:
    """The protocol with these limits; uvicorn makes its instances itself, so they are the class's.

    Args:
        header_timeout_s: Time for the head of a request, from the connection or the end of the last answer
            on.
        max_connections: Connections open at a time; one more is closed at once.
    """
    limits = {"header_timeout_s": header_timeout_s, "max_connections": max_connections}
    return type("LimitedProtocol", (PatientProtocol,), limits)
