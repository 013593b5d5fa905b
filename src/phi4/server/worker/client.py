"""What routes ask: prepare a request, generate its answers, say how things stand, drain.

    client = EngineClient(settings)
    await client.start()
    with client.enter(key) as ticket:                        # no room -> 429 or 503, decided here
        prepared = await client.prepare(PrepareRequest("chat", messages), ticket)
        async for event in client.generate(prepared, GenerateOptions(), ticket):
            ...
    await client.drain()

It owns the processes (a pool of preparers, one supervised engine) and the limits. It decodes nothing that a
client sent. Used from one asyncio loop. Leaving `generate` early, however it happens, cancels the answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from phi4.errors import ContextOverflow, InvalidRequest, Phi4Error
from phi4.server.failures import DeadlineExceeded, Draining, InternalFailure, NotReady
from phi4.server.faults import places_of
from phi4.server.limits import Admission, Ticket
from phi4.server.settings import ServerSettings
from phi4.server.turns import Turns
from phi4.server.worker.flight import Flight
from phi4.server.worker.flights import RETRY_S, Flights
from phi4.server.worker.frames import StartPreparer
from phi4.server.worker.pool import PreparerPool
from phi4.server.worker.supervisor import Supervisor
from phi4.server.worker.values import (
    GenerateOptions,
    Health,
    ModelCard,
    Prepared,
    PreparedRow,
    PrepareRequest,
    ServerEvent,
    ServerStats,
    State,
)

_log = logging.getLogger(__name__)
_ANSWER_S = 1.0


class EngineClient:
    """The processes behind the routes.

    Args:
        settings: What is served, and the limits.

    Attributes:
        settings: The same.
        admission: What is under way.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        # With keys nobody may fill the engine alone: a quarter of it is there for whoever comes next.
        most = -(-3 * settings.max_running // 4) if settings.key_digests else None
        self._turns = Turns(settings.max_running, settings.max_queue_tokens_per_turn, most)
        self.admission = Admission(settings, self._turns)
        self._flights = Flights(self._turns)
        self._supervisor = Supervisor(settings, self._flights)
        self._pool = PreparerPool(settings)
        self._card: ModelCard | None = None
        self._closed = False

    @property
    def card(self) -> ModelCard:
        """What is served; known after `start`."""
        assert self._card is not None, "the client was started"
        return self._card

    @property
    def state(self) -> State:
        """How things stand, as far as this process knows; `health` asks the engine."""
        if self._closed:
            return "stopped"
        return "draining" if self.admission.draining else self._supervisor.state

    async def start(self) -> None:
        """Start the processes; returns when the engine takes work.

        Raises:
            Phi4Error: Why the model cannot be served.
        """
        try:
            ready = await self._supervisor.start()
            self._card = ready.card
            self._turns.expect(ready.tokens_per_s)
            await self._pool.start(StartPreparer(self.settings, ready.card, ready.path))
        except BaseException:
            await self.close()
            raise

    def enter(self, key: str) -> Ticket:
        """Let a request in, or refuse it, at once; see `Admission.enter`.

        Raises:
            ServerFailure: Why not now.
        """
        if self.state in ("starting", "restarting", "failed"):
            raise self.admission.refused(NotReady("the engine is being started; try again", RETRY_S))
        return self.admission.enter(key)

    async def prepare(self, request: PrepareRequest, ticket: Ticket) -> Prepared:
        """Turn what a client sent into rows.

        Raises:
            Phi4Error: Why it cannot be answered.
        """
        prepared = await self._pool.prepare(request, ticket.remaining())
        ticket.charge(prepared.num_prompt_tokens, prepared.num_bytes)
        return prepared

    async def generate(
        self, prepared: Prepared, options: GenerateOptions, ticket: Ticket
    ) -> AsyncGenerator[ServerEvent, None]:
        """Answer every row `options.n` times.

        Yields:
            Events as they come; each answer's last one has a finish reason, and the last of all ends this.

        Raises:
            Phi4Error: Why there are no answers, or no more of them.
        """
        lengths = self._checked(prepared, options)
        ticket.charge(prepared.num_prompt_tokens + options.n * sum(lengths), prepared.num_bytes)
        flight = Flight(ticket.key, self.settings.send_buffer_events, self.settings.stream_interval_s)
        self._flights.opened(flight)
        flight.end_at(_deadline(options, ticket))
        waited_s: list[float] = []  # of each row that has had its turn
        feeding = asyncio.create_task(self._feed(flight, prepared.rows, lengths, options, waited_s))
        try:
            left = len(prepared.rows) * options.n
            while left:
                event = await flight.next()
                if event.finish_reason is not None:
                    left -= 1
                    event = replace(event, waited_s=waited_s[event.index // options.n])
                yield event
        finally:
            feeding.cancel()
            self._flights.closed(flight, self._supervisor)

    async def health(self) -> Health:
        """How things stand; asks the engine, for at most a second."""
        began = time.perf_counter()
        pong = await self._supervisor.ask(_ANSWER_S) if self._supervisor.state == "ready" else None
        return Health(
            self.state,
            self._supervisor.restarts,
            self._supervisor.pid,
            None if pong is None else 1000 * (time.perf_counter() - began),
            0.0 if pong is None else pong.turn_s,
            self._turns.running,
            self._turns.waiting,
        )

    def stats(self) -> ServerStats:
        """Counters and gauges, without asking anybody."""
        admission = self.admission
        return ServerStats(
            dict(self._supervisor.stats),
            admission.under_way,
            self._turns.running,
            self._turns.waiting,
            self._pool.preparing,
            admission.held_bytes,
            admission.held_tokens,
            admission.accepted_total,
            admission.rejected_total,
            self._pool.prepared_total,
            self._pool.deaths_total,
            self._supervisor.restarts,
        )

    async def drain(self, timeout_s: float | None = None) -> bool:
        """Take nothing new, wait for what is under way, then end the processes.

        Args:
            timeout_s: How long to wait; None = `ServerSettings.drain_timeout_s`.

        Returns:
            Whether everything was finished; False = some answers were cut off.
        """
        self.admission.drain()
        finished = True
        try:
            async with asyncio.timeout(self.settings.drain_timeout_s if timeout_s is None else timeout_s):
                await self.admission.empty()
        except TimeoutError:
            finished = False
        await self.close()
        return finished

    async def close(self) -> None:
        """End everything now; who still waits for an answer is told so."""
        self.admission.drain()
        self._closed = True
        self._flights.fail_all(Draining("the server has shut down"))
        await self._supervisor.close()
        await self._pool.close()

    def _checked(self, prepared: Prepared, options: GenerateOptions) -> list[int]:
        """Longest answer of each row.

        Raises:
            InvalidRequest: A number that cannot be.
            ContextOverflow: An answer of that length does not fit behind its prompt.
        """
        n, most = options.n, options.max_new_tokens
        if not 1 <= n <= self.settings.max_choices:
            raise InvalidRequest(f"n is {n}; give a whole number from 1 to {self.settings.max_choices}")
        if n * len(prepared.rows) > max(self.settings.max_rows, self.settings.max_choices):
            raise InvalidRequest(
                f"{n} answers to each of {len(prepared.rows)} prompts are more than the "
                f"{self.settings.max_rows} possible in one request"
            )
        limit = self.settings.max_new_tokens
        if most is not None and (most < 1 or (limit is not None and most > limit)):
            shown = "1 up" if limit is None else f"1 to {limit}"
            raise InvalidRequest(f"max_tokens is {most}; give a whole number from {shown}")
        return [_answer_length(row, most, limit) for row in prepared.rows]

    async def _feed(
        self,
        flight: Flight,
        rows: Sequence[PreparedRow],
        lengths: Sequence[int],
        options: GenerateOptions,
        waited_s: list[float],
    ) -> None:
        """Bring row after row to the engine, each when its turn has come."""
        began = time.monotonic()
        try:
            for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
                await self._turn(flight.key, row.num_prompt_tokens + options.n * length, options.n)
                waited_s.append(time.monotonic() - began)
                self._flights.submit(flight, self._supervisor, row, number * options.n, length, options)
                flight.begin_within(self.settings.first_token_timeout_s)
        except Phi4Error as error:
            flight.fail(error)
        except Exception as error:
            _log.error("an answer could not be asked for: %s", places_of(error))
            flight.fail(InternalFailure("something went wrong inside the server"))
        finally:
            if flight.failed:
                self._flights.give_up(flight, self._supervisor)

    async def _turn(self, key: str, cost: int, width: int) -> None:
        try:
            async with asyncio.timeout(self.settings.queue_timeout_s):
                await self._turns.take(key, cost, width)
                try:
                    await self._supervisor.until_ready()
                except BaseException:
                    self._turns.give(key, width)
                    raise
        except TimeoutError:
            raise DeadlineExceeded(
                "the request waited too long for its turn; try again later", RETRY_S
            ) from None


def _deadline(options: GenerateOptions, ticket: Ticket) -> float:
    if options.timeout_s is None:
        return ticket.deadline
    return min(ticket.deadline, ticket.began + options.timeout_s)


def _answer_length(row: PreparedRow, asked: int | None, limit: int | None) -> int:
    if asked is None:
        return row.default_new_tokens if limit is None else min(row.default_new_tokens, limit)
    if asked > row.room_tokens:
        total = row.num_prompt_tokens + row.room_tokens
        raise ContextOverflow(
            f"the prompt has {row.num_prompt_tokens} tokens and the answer may take {asked}, together over "
            f"the model's context of {total}; shorten the prompt or ask for at most {row.room_tokens}"
        )
    return asked
