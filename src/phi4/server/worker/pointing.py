"""Errors of a conversation in the words of a request: the place they are about, and what it may say instead.

The processor knows pictures and turns, wherever they come from. A client knows `messages[0].content[1]`, and
may ask for less with fields that a library and a command line spell differently.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from phi4.errors import ContextOverflow, InvalidMedia
from phi4.server.worker.values import PrepareRequest
from phi4.types import Message


@contextmanager
def pointed(request: PrepareRequest, messages: Sequence[Message]) -> Iterator[None]:
    """Around the preparation of a conversation.

    Args:
        request: What the client sent.
        messages: The same, parsed and not expanded: its parts stand where the client put them.

    Raises:
        InvalidMedia: With the place of the part, where it is one of the request's.
        ContextOverflow: With what the request may ask for.
    """
    try:
        yield
    except InvalidMedia as error:
        place = _place(request, messages, error.part)
        raise InvalidMedia(f"{place}: {error}" if place else str(error)) from None
    except ContextOverflow as error:
        raise ContextOverflow("; ".join((str(error), *_ways(request, messages, error)))) from None


def _place(request: PrepareRequest, messages: Sequence[Message], found: object | None) -> str:
    for number, message in enumerate(messages):
        for index, part in enumerate(message.parts):
            if part is found:
                kind = request.messages[number]["content"][index]["type"]
                return f"messages[{number}].content[{index}].{kind}"
    return ""


def _ways(request: PrepareRequest, messages: Sequence[Message], error: ContextOverflow) -> list[str]:
    ways = []
    if error.has_pictures:
        ways.append('"detail": "low" looks at pictures less closely')
    if request.overflow == "error" and sum(message.role == "user" for message in messages) > 1:
        ways.append('"truncation": "auto" leaves out the oldest turns')
    return ways
