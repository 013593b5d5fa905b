"""The real application in front of scripted processes: what a client sees, without a model.

`serve(script, **settings)` builds the app; `.post("/v1/...", {...})` sends it one request over ASGI, byte for
byte. The scripted client keeps the contract of `EngineClient`, its limits included, and counts
what was left open.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI

from phi4.server.http.app import build_app
from phi4.server.limits import Admission, Ticket
from phi4.server.settings import ServerSettings
from phi4.server.turns import Turns
from phi4.server.worker.values import (
    GenerateOptions,
    Health,
    ModelCard,
    Prepared,
    PreparedRow,
    PrepareRequest,
    ServerEvent,
    ServerStats,
    ToolCallDelta,
)
from phi4.types import Timing, Usage

Script = Callable[[int], Sequence[ServerEvent | Exception]]
HOST = [(b"host", b"127.0.0.1:8000")]


class ScriptedClient:
    """Says what a script says.

    Attributes:
        settings: As given.
        requests: Every request it prepared.
        options: How each was to be answered.
        script: Events of an answer by its index; an exception is raised in its place.
        prepared: What `prepare` returns; None = one row for each prompt.
        refusal: What `prepare` raises; None = nothing.
        held: Answers wait for it before each event but the first.
        generating: Answers that are open.
    """

    def __init__(self, settings: ServerSettings, script: Script) -> None:
        self.settings = settings
        self.admission = Admission(settings, Turns(settings.max_running, settings.max_queue_tokens_per_turn))
        self.script = script
        self.requests: list[PrepareRequest] = []
        self.options: list[GenerateOptions] = []
        self.prepared: Prepared | None = None
        self.refusal: Exception | None = None
        self.held: asyncio.Event | None = None
        self.generating = 0
        self.health_found = Health("ready", 0, 42, 1.0)

    @property
    def card(self) -> ModelCard:
        adapters = tuple(name for name, _ in self.settings.adapters)
        return ModelCard(
            "nano", "scripted", "cpu", "float32", 4096, 1000, ("text", "vision", "speech"), adapters
        )

    def enter(self, key: str) -> Ticket:
        return self.admission.enter(key)

    async def prepare(self, request: PrepareRequest, ticket: Ticket) -> Prepared:
        self.requests.append(request)
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise self.refusal
        if self.prepared is not None:
            return self.prepared
        if request.task == "tokenize":
            return Prepared(token_ids=(5, 6, 7))
        return Prepared(tuple(PreparedRow(b"row", 7) for _ in request.prompts or (None,)))

    async def generate(
        self, prepared: Prepared, options: GenerateOptions, ticket: Ticket
    ) -> AsyncGenerator[ServerEvent, None]:
        self.options.append(options)
        self.generating += 1
        try:
            scripts = [list(self.script(index)) for index in range(len(prepared.rows) * options.n)]
            for step in range(max(map(len, scripts), default=0)):
                for events in scripts:
                    if step < len(events):
                        if step and self.held is not None:
                            await self.held.wait()
                        await asyncio.sleep(0)
                        yield _raised(events[step])
        finally:
            self.generating -= 1

    async def health(self) -> Health:
        return self.health_found

    def stats(self) -> ServerStats:
        engine = {"prompt_tokens": 12.0, "cache_usage": 0.25, "kept_usage": 0.5}
        return ServerStats(engine, self.admission.under_way, 1, 2)


def _raised(event: ServerEvent | Exception) -> ServerEvent:
    if isinstance(event, Exception):
        raise event
    return event


@dataclass
class Answered:
    """A response: status, headers, body, and whether it was sent to its end."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    whole: bool = False

    def header(self, name: str) -> str | None:
        found = [value.decode() for key, value in self.headers if key.decode() == name]
        assert len(found) < 2, f"{name} is sent once"
        return found[0] if found else None

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json()["error"]

    def events(self) -> list[Any]:
        """Data of server-sent events; "[DONE]" as text. Fails on anything malformed."""
        assert self.body.endswith(b"\n\n"), self.body[-80:]
        found = []
        for block in self.body.decode("ascii").removesuffix("\n\n").split("\n\n"):
            lines = [line for line in block.split("\n") if not line.startswith(":")]
            names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
            data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
            assert len(names) + len(data) == len(lines) and len(names) < 2, block
            for text in data:
                value = text if text == "[DONE]" else json.loads(text)
                assert not names or names[0] == value["type"]
                found.append(value)
        return found


@dataclass
class Visitor:
    """One ASGI connection: sends its body in chunks, collects the answer, leaves when told."""

    chunks: Sequence[bytes]
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    answered: Answered = field(default_factory=Answered)
    sent: int = 0

    async def receive(self) -> dict[str, Any]:
        if self.sent < len(self.chunks):
            self.sent += 1
            more = self.sent < len(self.chunks)
            return {"type": "http.request", "body": self.chunks[self.sent - 1], "more_body": more}
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        if message["type"] == "http.response.start":
            self.answered.status = message["status"]
            self.answered.headers = list(message["headers"])
        else:
            self.answered.body += message.get("body", b"")
            self.answered.whole = not message.get("more_body", False)


async def visit(
    app: Any,
    method: str,
    path: str,
    *,
    json_body: Any = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
    host: Sequence[tuple[bytes, bytes]] = HOST,
    chunks: Sequence[bytes] | None = None,
    visitor: Visitor | None = None,
    raw_path: bytes | None = None,
) -> Answered:
    """Send one request."""
    sent = list(headers)
    if json_body is not None:
        chunks = [json.dumps(json_body).encode()]
        sent.append((b"content-type", b"application/json"))
    visitor = visitor or Visitor(chunks if chunks is not None else [b""])
    visitor.chunks = chunks if chunks is not None else visitor.chunks
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path.partition("?")[0],
        "raw_path": path.partition("?")[0].encode() if raw_path is None else raw_path,
        "root_path": "",
        "query_string": path.partition("?")[2].encode(),
        "headers": [*host, *sent],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    await app(scope, visitor.receive, visitor.send)
    return visitor.answered


def says(*pieces: str, reason: str = "stop", calls: Sequence[ToolCallDelta] = (), **last: Any) -> Script:
    """A script: every answer says these pieces and ends for this reason."""

    def script(index: int) -> list[ServerEvent]:
        events = [ServerEvent(index, piece) for piece in pieces]
        events += [ServerEvent(index, tool_calls=(piece,)) for piece in calls]
        ended = ServerEvent(
            index,
            finish_reason=reason,
            usage=Usage(7, max(1, len(pieces)), 2, 3),
            timing=Timing(0.1, 0.2, 0.4, 1.0),
            cached_tokens=4,
            **last,
        )
        return [*events, ended]

    return script


@dataclass
class Serving:
    """An app and the scripted processes behind it."""

    app: FastAPI
    client: ScriptedClient

    def send(self, method: str, path: str, json: Any = None, **more: Any) -> Answered:
        return asyncio.run(visit(self.app, method, path, json_body=json, **more))

    def post(self, path: str, json: Any = None, **more: Any) -> Answered:
        return self.send("POST", path, json, **more)

    def get(self, path: str, **more: Any) -> Answered:
        return self.send("GET", path, **more)

    def chat(self, text: str = "hi", **fields: Any) -> Answered:
        return self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **fields})

    @property
    def left_open(self) -> int:
        """Tickets and answers that nobody gave back."""
        return self.client.admission.under_way + self.client.generating


@pytest.fixture
def serve() -> Iterator[Callable[..., Serving]]:
    """`serve(script, **settings)`: an app; after the test nothing may be left open behind any of them."""
    made: list[Serving] = []

    def build(script: Script | None = None, **settings: Any) -> Serving:
        options = ServerSettings(**settings)
        client = ScriptedClient(options, script or says("Hello", " there"))
        made.append(Serving(build_app(client, options), client))
        return made[-1]

    yield build
    assert [serving.left_open for serving in made] == [0] * len(made)


@pytest.fixture
def script() -> Callable[..., Script]:
    """`says`, for tests that need pieces of their own."""
    return says


@pytest.fixture
def visiting() -> Any:
    """`visit` and `Visitor`, for tests of connections."""
    return visit, Visitor


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until something is so."""
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0)
    assert condition()


@pytest.fixture
def wait_until() -> Any:
    """`until`."""
    return until
