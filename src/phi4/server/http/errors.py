"""The one mapper from what went wrong to what a client reads: OpenAI's body, a status, a stable code.

    return error_response(error, request_id)

Every error of every route passes through `describe`, and nothing else writes an error body. A body holds a
stable code, a message for people and the request's id. It never holds a path, an address or a traceback: the
message of an error that is ours alone is a fixed sentence, and the others go through `shown`. What really
happened stands in the log under the same id, as a class and lines of source, never as the client's text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from phi4.errors import (
    ContextOverflow,
    InvalidMedia,
    InvalidRequest,
    MissingExtra,
    ModelNotFound,
    OutOfMemory,
    Phi4Error,
)
from phi4.server.failures import InternalFailure, ServerFailure
from phi4.server.faults import places_of

_log = logging.getLogger(__name__)

INTERNAL = "the server failed; its log has the cause under this request id"
MAX_MESSAGE = 600
"""Characters of a message; what a client sent may be echoed in it, but not all of it."""
_FIXED = {
    404: (
        "not_found",
        "there is no such route; none ends with a slash, and the documentation of phi4 serve lists them",
    ),
    405: ("method_not_allowed", "this route does not take that method"),
}
_CODES: tuple[tuple[type[Phi4Error], int, str], ...] = (
    (ContextOverflow, 400, "context_length_exceeded"),
    (InvalidMedia, 400, "invalid_media"),
    (InvalidRequest, 400, "invalid_request"),
    (MissingExtra, 400, "not_available_here"),
    (ModelNotFound, 404, "model_not_found"),
    (OutOfMemory, 503, "out_of_memory"),
)
"""First class that fits wins; errors of ours that are not listed are the operator's faults, or our own."""
_NOT_RETRIED = (500, 504)
"""Statuses after which a client that repeats by itself would only add to the load."""
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")
_OBJECT = re.compile(r"<[^<>]*\bobject\b[^<>]*>")
_PATH = re.compile(r"(?<![\w.:/)\]}-])/(?:[\w.+@~-]+/)+[\w.+@~-]*")
_FIELD = re.compile(r"([a-z_]+(?:\[\d+\]|\.[A-Za-z_]+)*)(?:: | is | has | lacks | must | names )")


class InvalidField(InvalidRequest):
    """A field of a body has a value that cannot work.

    Attributes:
        param: Where, such as "messages[0].content".
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(f"{param}: {message}")
        self.param = param


class TooLong(ContextOverflow):
    """A prompt, with its answer, that is longer than can be taken.

    Attributes:
        param: The field it stands in.
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class Unauthorised(ServerFailure):
    """No key, or one that is not known."""

    status = 401
    code = "invalid_api_key"


class Refused(ServerFailure):
    """A browser brought this request from another site."""

    status = 403
    code = "origin_refused"


class UnknownModel(ServerFailure):
    """No model or adapter is served under that name."""

    status = 404
    code = "model_not_found"


class UnknownResponse(ServerFailure):
    """No response of that id is kept for this key."""

    status = 404
    code = "response_not_found"


class BodyTooSlow(ServerFailure):
    """The body did not arrive in time."""

    status = 408
    code = "request_timeout"


class BodyTooLarge(ServerFailure):
    """The body is over the limit; noticed while it is read."""

    status = 413
    code = "request_too_large"


class WrongMediaType(ServerFailure):
    """The body is not what this route reads, or is compressed."""

    status = 415
    code = "unsupported_media_type"


class WrongHost(ServerFailure):
    """The Host header is missing, doubled, malformed, or names somebody else."""

    status = 421
    code = "host_refused"


class HeadersTooLarge(ServerFailure):
    """More header than any honest client sends."""

    status = 431
    code = "headers_too_large"


@dataclass(frozen=True)
class Problem:
    """What a client is told.

    Attributes:
        status: HTTP status.
        code: Stable name of the cause.
        message: For people.
        param: Field of the body it is about; None = none, or not known.
        retry_after_s: Seconds until trying again may help; None = it will not by itself.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: int | None = None

    @property
    def type(self) -> str:
        """OpenAI's coarse kind of error."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        return kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    def body(self, request_id: str) -> dict[str, Any]:
        """The error in OpenAI's form, with the request's id beside it."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error | {"request_id": request_id}}

    def headers(self) -> dict[str, str]:
        """Headers that go with it."""
        found: dict[str, str] = {}
        if self.retry_after_s is not None:
            found["retry-after"] = str(self.retry_after_s)
        if self.status in _NOT_RETRIED:
            found["x-should-retry"] = "false"
        if self.status == 401:
            found["www-authenticate"] = "Bearer"
        return found


def describe(error: BaseException) -> Problem:
    """What a client is told about an error; anything unexpected is an internal error without details."""
    if isinstance(error, InternalFailure):
        return Problem(error.status, error.code, INTERNAL)
    if isinstance(error, ServerFailure):
        return Problem(error.status, error.code, shown(str(error)), None, error.retry_after_s)
    if isinstance(error, HTTPException):
        code, message = _FIXED.get(error.status_code, ("invalid_request", "the request cannot be read"))
        return Problem(error.status_code, code, message)
    for kind, status, code in _CODES:
        if isinstance(error, kind):
            retry = 1 if status == 503 else None
            return Problem(status, code, shown(str(error)), _param(error), retry)
    return Problem(500, InternalFailure.code, INTERNAL)


def error_response(
    error: BaseException, request_id: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer to a request that failed; faults of ours are logged.

    Args:
        error: What happened.
        request_id: Goes into body and log.
        headers: More headers, such as `allow`.
    """
    problem = describe(error)
    if problem.status == 500:
        log_fault(error, request_id)
    return JSONResponse(problem.body(request_id), problem.status, {**(headers or {}), **problem.headers()})


def shown(message: str) -> str:
    """A message as a client may read it: no paths, no addresses, one line, not endless."""
    plain = _PATH.sub("(path)", _ADDRESS.sub("(address)", _OBJECT.sub("(object)", message)))
    plain = " ".join(plain.encode("utf-8", "replace").decode("utf-8").split())
    return plain if len(plain) <= MAX_MESSAGE else plain[: MAX_MESSAGE - 3] + "..."


def log_fault(error: BaseException, request_id: str) -> None:
    """Log a fault of ours on one line: class and places, never its text, which may be a client's."""
    _log.error("%s: %s", request_id, places_of(error))


def _param(error: BaseException) -> str | None:
    if isinstance(error, InvalidField | TooLong):
        return error.param
    found = _FIELD.match(str(error))
    return found[1] if found else None
