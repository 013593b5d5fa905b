"""Bodies, read with a running limit and parsed by one strict reader.

    asked = await read_json(request, ticket, settings, ChatRequest)

The limit is counted while bytes arrive, whatever was announced, against this request and against all requests
together. JSON has to be UTF-8 with one value for each key, finite numbers, no half surrogates, and no more
nesting or values than a request can mean; each of these has broken a server that took what its parser took.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.types import Message

from phi4.errors import InvalidRequest
from phi4.server.http.complaints import field_error
from phi4.server.http.errors import BodyTooLarge, BodyTooSlow, WrongMediaType
from phi4.server.http.form import Form, FormReader
from phi4.server.limits import Ticket
from phi4.server.settings import ServerSettings

_log = logging.getLogger(__name__)

MAX_DEPTH = 64
MAX_VALUES = 300_000
"""Commas and brackets in a JSON body: what it may cost to parse. Text and media have few for their length."""
MAX_DIGITS = 400
_IN_A_THREAD_BYTES = 64 * 1024
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SHOWN_UNKNOWN = 8

Asked = TypeVar("Asked", bound=BaseModel)


async def read_json(request: Request, ticket: Ticket, settings: ServerSettings, model: type[Asked]) -> Asked:
    """Read a JSON body as one of the schemas.

    Args:
        request: The request, body not read yet.
        ticket: Its place among the others.
        settings: Size and time a body may take.
        model: What it has to be.

    Raises:
        InvalidRequest: Not JSON as described above, or a field is wrong.
        ServerFailure: Wrong media type, too large, too slow.
    """
    _check_media_type(request, "application/json")
    async with _in_time(settings):
        chunks = [chunk async for chunk in _counted(request, ticket, settings).stream()]
    body = b"".join(chunks)
    if len(body) < _IN_A_THREAD_BYTES:
        return checked(model, parse_object(body))
    # Beside the event loop, which other requests are waiting for.
    return checked(model, await asyncio.to_thread(parse_object, body))


async def read_form(request: Request, ticket: Ticket, settings: ServerSettings) -> Form:
    """Read a multipart body.

    Raises:
        InvalidRequest: It is broken, or has too many parts.
        ServerFailure: As `read_json`.
    """
    _check_media_type(request, "multipart/form-data")
    reader = FormReader(request.headers["content-type"])
    async with _in_time(settings):
        async for chunk in _counted(request, ticket, settings).stream():
            reader.write(chunk)
    return reader.close()


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object out of bytes, strictly.

    Raises:
        InvalidRequest: Says what is wrong with it.
    """
    if sum(body.count(mark) for mark in (b",", b"{", b"[")) > MAX_VALUES:
        raise InvalidRequest(f"the body holds more than {MAX_VALUES:,} values; send less at once")
    try:
        text = body.decode("utf-8")
        found = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_whole,
            parse_float=_finite,
        )
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not UTF-8; encode it so") from None
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON ({error.msg} at character {error.pos})") from None
    if not isinstance(found, dict):
        raise InvalidRequest(f"the body is a {type(found).__name__}; it must be a JSON object")
    _check_depth(found)
    if _SURROGATE.search(text):
        _check_text(found)
    return found


def checked(model: type[Asked], found: Mapping[str, Any]) -> Asked:
    """A JSON object as one of the schemas; fields nobody knows are ignored and named in the log.

    Raises:
        InvalidField: The first field that is wrong.
    """
    unknown = [name for name in found if name not in model.model_fields]
    if unknown:
        names = ", ".join(repr(name[:40]) for name in unknown[:_SHOWN_UNKNOWN])
        _log.info("%s: ignored %d unknown fields: %s", model.__name__, len(unknown), names)
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise field_error(error) from None


def _check_media_type(request: Request, wanted: str) -> None:
    # A browser sends other types across sites without asking, so being strict here is a guard, too.
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != wanted:
        raise WrongMediaType(f"the body has to be sent as Content-Type: {wanted}")


@asynccontextmanager
async def _in_time(settings: ServerSettings) -> AsyncIterator[None]:
    """Time a body may take to arrive."""
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            yield
    except TimeoutError:
        raise BodyTooSlow(
            f"the body did not arrive within {settings.body_timeout_s:g} seconds; send it faster, or less"
        ) from None


def _counted(request: Request, ticket: Ticket, settings: ServerSettings) -> Request:
    """The request with a body that is counted while it arrives."""
    limit = settings.max_body_bytes
    total = 0

    async def receive() -> Message:
        nonlocal total
        message = await request.receive()
        size = len(message.get("body", b""))
        total += size
        if total > limit:
            raise BodyTooLarge(f"the body is over the limit of {limit:,} bytes")
        ticket.hold(size)
        return message

    return Request(request.scope, receive)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidRequest("an object in the body has the same key twice; give each once")
    return found


def _refuse_constant(name: str) -> Any:
    raise InvalidRequest(f"the body holds {name}, which is not JSON; give finite numbers")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise InvalidRequest("the body holds a number too large to be one; give finite numbers")
    return value


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise InvalidRequest(f"the body holds a number of {len(digits)} digits; give smaller ones")
    return int(digits)


def _check_depth(found: Any) -> None:
    """Measure nesting level by level; what is walked was counted before."""
    layer = [found]
    for _ in range(MAX_DEPTH):
        layer = [
            child
            for item in layer
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
        if not layer:
            return
    raise _too_deep()


def _check_text(found: Any) -> None:
    """Refuse text that cannot be encoded: half a surrogate pair, which no answer could repeat."""
    waiting = [found]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, str):
            try:
                item.encode()
            except UnicodeEncodeError:
                raise InvalidRequest(
                    "a text in the body holds half of a surrogate pair; encode it whole"
                ) from None


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"the body is nested deeper than {MAX_DEPTH} levels; make it flatter")
