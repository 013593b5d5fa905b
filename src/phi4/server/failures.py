"""Failures that only a server has: no room, too late, the process behind the request is gone.

They are `Phi4Error`s, so the one mapper from errors to bodies treats them like the others. Each class states
its HTTP status and its stable code here, beside its meaning; the message is for people.
"""

from __future__ import annotations

from typing import ClassVar

from phi4.errors import Phi4Error


class ServerFailure(Phi4Error):
    """Root of these.

    Attributes:
        status: HTTP status.
        code: Stable name of the cause, for programs.
        retry_after_s: When to try again, in whole seconds; None = trying again will not help by itself.
    """

    status: ClassVar[int] = 503
    code: ClassVar[str] = "unavailable"

    def __init__(self, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooManyRequests(ServerFailure):
    """This key has as many requests, tokens or bytes under way as one key may have."""

    status = 429
    code = "rate_limit_exceeded"


class Overloaded(ServerFailure):
    """The server has as many requests, tokens or bytes under way as it takes, of all keys together."""

    code = "overloaded"


class Draining(ServerFailure):
    """The server is shutting down and takes nothing new."""

    code = "shutting_down"


class NotReady(ServerFailure):
    """The engine is starting, or starting again."""

    code = "not_ready"


class EngineRestarted(ServerFailure):
    """The engine process died or hung while it worked on this request."""

    code = "engine_restarted"


class PreparationFailed(ServerFailure):
    """The process that decoded this request died of it, or took too much time or memory: its own fault."""

    status = 400
    code = "cannot_be_prepared"


class DeadlineExceeded(ServerFailure):
    """The request did not get done in the time it had."""

    status = 504
    code = "deadline_exceeded"


class InternalFailure(ServerFailure):
    """A fault of ours; the log has the details, the client only this."""

    status = 500
    code = "internal_error"
