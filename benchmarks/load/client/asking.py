"""Requests as bytes, and their answers read event by event.

Every request asks for a stream with its usage at the end, so that first tokens and gaps are seen by the
client and tokens are counted by the server. Answers of a fixed length have the tokens that would end them
biased away.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from load.client.traces import OK, Trace
from load.client.wire import Wire

LONGEST_S = 600.0
"""Nobody waits longer for an answer."""
GIVEN_UP = "given up"
"""Error of an answer that took longer than its user waited."""
_UNLIKELY = -100.0
_END = b"\n\n"


def post(path: str, body: Mapping[str, Any]) -> bytes:
    """A request with a JSON body, as it goes over the wire."""
    return raw_post(path, json.dumps(body).encode(), "application/json")


def raw_post(path: str, content: bytes, kind: str) -> bytes:
    """A request with any body."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode("ascii") + content


def get(path: str) -> bytes:
    """A request without a body."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode("ascii")


def fixed_length(tokens: int, ends: Sequence[int]) -> dict[str, Any]:
    """Fields of a body whose answer has just so many tokens.

    Args:
        tokens: How many.
        ends: Tokens that would end it sooner.
    """
    return {
        "max_tokens": tokens,
        "logit_bias": {str(end): _UNLIKELY for end in ends},
        "stop_repetition": False,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def completion(ids: Sequence[int], tokens: int, ends: Sequence[int]) -> bytes:
    """A prompt of token ids to be continued as it stands."""
    return post("/v1/completions", {"prompt": list(ids), **fixed_length(tokens, ends)})


def chat(text: str, fields: Mapping[str, Any]) -> bytes:
    """A question."""
    return post("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **fields})


class Listener:
    """Reads the pieces of an answer while they come.

    Args:
        clock: Tells when.

    Attributes:
        pieces_s: When pieces with something in them came.
        tokens: Of the answer.
        prompt_tokens: Of the prompt.
        error: Code of the error it ended with.
        text: All that was said.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._rest = b""
        self._parts: list[str] = []
        self.pieces_s: list[float] = []
        self.tokens = 0
        self.prompt_tokens = 0
        self.error = ""
        self._closed = False

    @property
    def text(self) -> str:
        """All that was said."""
        return "".join(self._parts)

    def hear(self, status: int, data: bytes) -> None:
        """A piece of the body came."""
        now = self._clock()
        *events, self._rest = (self._rest + data).split(_END)
        for event in events:
            if event.startswith(b"data: {"):
                self._event(json.loads(event[len(b"data: ") :]), now)
            elif event == b"data: [DONE]":
                self._closed = True
        if status != OK and self._rest.endswith(b"}"):
            self.error = str(_code(json.loads(self._rest)) or status)

    def end(self, status: int) -> None:
        """The body is whole."""
        if status == OK and not self._closed and not self.error:
            self.error = "broke off"

    def _event(self, event: dict[str, Any], now: float) -> None:
        if "error" in event:
            self.error = str(_code(event))
        for choice in event.get("choices", ()):
            delta = choice.get("delta", choice)
            said = delta.get("content") or delta.get("text") or ""
            if said or delta.get("tool_calls"):
                self.pieces_s.append(now)
                self._parts.append(said)
        usage = event.get("usage")
        if usage:
            self.tokens = usage["completion_tokens"]
            self.prompt_tokens = usage["prompt_tokens"]


def _code(body: dict[str, Any]) -> Any:
    error = body.get("error", {})
    return error.get("code") if isinstance(error, dict) else error


async def ask(wire: Wire, request: bytes, due_s: float | None = None, patience_s: float = LONGEST_S) -> Trace:
    """Send a request and read its streamed answer.

    Args:
        wire: The connection.
        request: From `completion` or `chat`.
        due_s: When it was to be sent; None = now.
        patience_s: How long to wait for the end.
    """
    listener, status, error = Listener(), 0, ""
    sent_s = time.perf_counter()
    try:
        async with asyncio.timeout(patience_s):
            status = await wire.exchange(request, listener.hear)
        listener.end(status)
    except TimeoutError:
        error = GIVEN_UP
    except (OSError, EOFError, ValueError) as failure:
        error = type(failure).__name__
    return Trace(
        sent_s if due_s is None else due_s,
        sent_s,
        tuple(listener.pieces_s),
        time.perf_counter(),
        status,
        listener.tokens,
        listener.prompt_tokens,
        error or listener.error,
    )
