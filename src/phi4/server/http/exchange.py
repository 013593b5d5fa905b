"""One request and its answer: everything a route that generates does in the same way.

    exchange = Exchange(service, request)                      # its place among the others, or 429 or 503
    asked = await exchange.json(ChatRequest)
    begun = await exchange.begin(asked.prepare(""), asked.options(exchange.key), model)
    if asked.stream: return exchange.stream(chunks(begun))
    answers = await exchange.answers(begun)

What an exchange holds is given back by the gate when the response has gone, however that happens. The first
event is fetched before a status is sent, so that what an engine refuses is an error and not a broken stream.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from phi4.errors import ContextOverflow
from phi4.server.http.answers import Answer, collect
from phi4.server.http.auth import key_name, request_id
from phi4.server.http.body import read_form, read_json
from phi4.server.http.errors import InvalidField, Problem, TooLong, describe, log_fault
from phi4.server.http.fetching import Fetcher
from phi4.server.http.form import Form
from phi4.server.http.gate import exits_of
from phi4.server.http.metrics import Metrics
from phi4.server.http.stored import StoredResponses
from phi4.server.http.streaming import EventStream, sse, unless_gone
from phi4.server.registry import ServedModel, ServedModels
from phi4.server.settings import ServerSettings
from phi4.server.worker.client import EngineClient
from phi4.server.worker.values import GenerateOptions, Prepared, PrepareRequest, ServerEvent

Asked = TypeVar("Asked", bound=BaseModel)
_log = logging.getLogger(__name__)
_PROMPTS = ("messages", "input", "prompt")
"""Fields of bodies that hold the prompt; the first that a body knows is its own."""
_LONGEST_WORD = 1000
"""Longer text without a space is taken for a medium in base64, and not written to the log."""


@dataclass(frozen=True)
class Service:
    """What all routes of a server share.

    Attributes:
        client: The processes.
        settings: The options.
        models: Served names.
        metrics: Numbers for Prometheus.
        fetcher: Media behind URLs.
        stored: Responses that can be continued.
        started: Unix time of the start.
    """

    client: EngineClient
    settings: ServerSettings
    models: ServedModels
    metrics: Metrics
    fetcher: Fetcher
    stored: StoredResponses
    started: int


@dataclass(frozen=True)
class Begun:
    """A request that is being answered.

    Attributes:
        model: Name it asked for, as it is served.
        prepared: Its prompts.
        count: Number of answers.
        events: Their pieces.
    """

    model: str
    prepared: Prepared
    count: int
    events: AsyncGenerator[ServerEvent, None]


class Exchange:
    """A request on its way.

    Args:
        service: What all share.
        request: The request, its body not read.

    Raises:
        ServerFailure: There is no room.
    """

    def __init__(self, service: Service, request: Request) -> None:
        self.service = service
        self.request = request
        self.id = request_id(request.scope)
        self.key = key_name(request.scope)
        self.created = int(time.time())
        self._began_s = time.monotonic()
        self._prompt = "file"  # of a form
        self.ticket = exits_of(request.scope).enter_context(service.client.enter(self.key))

    async def json(self, model: type[Asked]) -> Asked:
        """The body; see `read_json`."""
        self._prompt = next(name for name in _PROMPTS if name in model.model_fields)
        return await read_json(self.request, self.ticket, self.service.settings, model)

    async def form(self) -> Form:
        """The form; see `read_form`."""
        return await read_form(self.request, self.ticket, self.service.settings)

    async def prepare(self, asked: PrepareRequest) -> Prepared:
        """Prepare without generating, until the client goes.

        Raises:
            Phi4Error: As `EngineClient.prepare`.
            ClientDisconnect: The client has gone.
        """
        return await unless_gone(self.request, self._prepare(asked))

    async def begin(self, asked: PrepareRequest, options: GenerateOptions, model: ServedModel) -> Begun:
        """Prepare, start to generate, and wait for the first piece.

        Raises:
            Phi4Error: As `EngineClient.prepare` and `EngineClient.generate`.
            ClientDisconnect: The client has gone.
        """
        most = self.service.settings.max_choices
        if options.n > most:
            raise InvalidField("n", f"is {options.n}, at most {most} are possible")
        try:
            return await unless_gone(self.request, self._begin(asked, options, model.name))
        except ContextOverflow as error:
            raise TooLong(self._prompt, str(error)) from None

    async def answers(self, begun: Begun) -> list[Answer]:
        """All answers, whole, unless the client goes before.

        Raises:
            Phi4Error: As `EngineClient.generate`.
            ClientDisconnect: The client has gone.
        """
        return await unless_gone(self.request, collect(begun.events, begun.count))

    def stream(self, pieces: AsyncGenerator[bytes, None]) -> EventStream:
        """A response of events; where they break off, one error is the last."""
        return EventStream(self._ended(pieces), self.service.settings.send_timeout_s)

    def problem(self, error: Exception) -> Problem:
        """What the client is told about an error in the middle of a stream; faults of ours are logged."""
        problem = describe(error)
        if problem.status == 500:
            log_fault(error, self.id)
        return problem

    async def _prepare(self, asked: PrepareRequest) -> Prepared:
        fetched = await self.service.fetcher.fetched(asked, self.ticket)
        return await self.service.client.prepare(fetched, self.ticket)

    async def _begin(self, asked: PrepareRequest, options: GenerateOptions, model: str) -> Begun:
        self._log("prompt", asked.messages or asked.prompts or f"a recording of {len(asked.audio)} bytes")
        prepared = await self._prepare(asked)
        if not prepared.rows:
            return Begun(model, prepared, 0, _nothing())
        events = self.service.client.generate(prepared, options, self.ticket)
        exits_of(self.request.scope).push_async_callback(events.aclose)
        first = await anext(events)
        self.service.metrics.first_piece(model, time.monotonic() - self._began_s)
        return Begun(model, prepared, len(prepared.rows) * options.n, self._watched(first, events, model))

    async def _watched(
        self, first: ServerEvent, events: AsyncGenerator[ServerEvent, None], model: str
    ) -> AsyncGenerator[ServerEvent, None]:
        """The events, measured while they pass."""
        metrics = self.service.metrics
        answers: dict[int, Answer] = {}
        last_s: dict[int, float] = {}
        event: ServerEvent | None = first
        while event is not None:
            now = time.monotonic()
            if event.index in last_s:
                metrics.next_piece(model, now - last_s[event.index])
            last_s[event.index] = now
            answer = answers.setdefault(event.index, Answer())
            answer.add(event)
            if event.finish_reason is not None:
                self._log("answer", answer.text)
                metrics.answer_ended(model, answer)
            yield event
            event = await anext(events, None)
        metrics.request_ended(model, time.monotonic() - self._began_s)

    def _log(self, what: str, said: Any) -> None:
        """Write what was said to the log, if the operator asked for that; media by their length."""
        if self.service.settings.log_prompts:
            _log.info("%s: %s %s", self.id, what, json.dumps(_abridged(said)))

    async def _ended(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece
        except Exception as error:
            yield sse(self.problem(error).body(self.id))


def _abridged(said: Any) -> Any:
    if isinstance(said, dict):
        return {name: _abridged(value) for name, value in said.items()}
    if isinstance(said, list | tuple):
        return [_abridged(value) for value in said]
    is_medium = isinstance(said, str) and len(said) > _LONGEST_WORD and " " not in said
    return f"({len(said)} characters)" if is_medium else said


async def _nothing() -> AsyncGenerator[ServerEvent, None]:
    """No pieces, of no answers: a recording of silence."""
    none: tuple[ServerEvent, ...] = ()
    for event in none:
        yield event


def new_id(prefix: str) -> str:
    """An id nobody can guess."""
    return f"{prefix}{secrets.token_hex(16)}"
