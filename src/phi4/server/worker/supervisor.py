"""Keeps one engine process alive: starts it, watches it, kills it when it hangs, starts another.

    supervisor = Supervisor(settings, listener)
    ready = await supervisor.start()    # raises what the model's start raised
    supervisor.send(Submit(...))

Ten times within `hang_s` the process is asked whether it is there. No answer to eight of these, or a turn of
its loop that lasts longer than it honestly can, and it is killed. Questions are counted, not seconds: when
this process itself is held up, it asks less often and nothing is misjudged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from phi4.errors import Phi4Error
from phi4.server.failures import InternalFailure, NotReady
from phi4.server.faults import places_of
from phi4.server.settings import ServerSettings
from phi4.server.worker.frames import (
    EngineReady,
    Events,
    Failed,
    Failure,
    Frame,
    Look,
    Looked,
    NotStarted,
    Ping,
    Pong,
    StartEngine,
    error_of,
)
from phi4.server.worker.process import Child, Gone
from phi4.server.worker.values import ServerEvent, State

_log = logging.getLogger(__name__)
ENGINE = "phi4.server.worker.engine"
"""Program of the process."""
_QUESTIONS = 10
_UNANSWERED = 8
_LATE = 0.85
"""Part of the time a turn may take after which it is too long: the next question comes a tenth later."""
_MANY_FAILURES = 5
_LONGEST_PAUSE_S = 60.0
_END_S = 2.0


class Listener(Protocol):
    """Who hears what the engine says."""

    def engine_events(self, items: Sequence[tuple[int, ServerEvent]], supervisor: Supervisor) -> None:
        """Answers went on."""
        ...

    def engine_failed(self, number: int, failure: Failure, supervisor: Supervisor) -> None:
        """An answer ended with an error."""
        ...

    def engine_down(self) -> None:
        """The process is gone, and every answer it had with it."""
        ...


class Supervisor:
    """The engine process of a server.

    Args:
        settings: What it serves, and its limits.
        listener: Who hears what it says.
        program: What the process runs.

    Attributes:
        state: "starting", "ready", "restarting", "failed" or "stopped".
        restarts: Times another process took the place of one.
        stats: The engine's statistics, at most a second old.
    """

    def __init__(self, settings: ServerSettings, listener: Listener, program: str = ENGINE) -> None:
        self._settings = settings
        self._listener = listener
        self._program = program
        self._child: Child | None = None
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._unanswered = 0
        self._asked: dict[int, asyncio.Future[Pong]] = {}
        self._number = 0
        self._failures = 0
        self.state: State = "starting"
        self.restarts = 0
        self.stats: dict[str, float] = {}

    @property
    def pid(self) -> int:
        """The process; 0 = none at the moment."""
        return 0 if self._child is None else self._child.pid

    async def start(self) -> EngineReady:
        """Start the first process.

        Raises:
            Phi4Error: Why it cannot be started; no other is tried.
        """
        child, ready = await self._begin()
        self._arrived(child)
        self._task = asyncio.create_task(self._keep_up(child))
        return ready

    async def until_ready(self) -> None:
        """Wait until there is a process that takes work."""
        await self._up.wait()

    def send(self, frame: Frame) -> bool:
        """Send a frame; False = there is no process at the moment.

        Raises:
            InvalidRequest: The frame cannot be written.
        """
        if self._child is None:
            return False
        self._child.send(frame)
        return True

    async def ask(self, wait_s: float) -> Pong | None:
        """Ask the process whether it is there, now; None = it did not say so in time."""
        number = self._next()
        answer: asyncio.Future[Pong] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            if not self.send(Ping(number)):
                return None
            async with asyncio.timeout(wait_s):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._asked[number]

    async def close(self) -> None:
        """End the process and start no other."""
        self.state = "stopped"
        self._up.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        child, self._child = self._child, None
        if child is not None:
            await child.end(_END_S)

    async def _keep_up(self, child: Child) -> None:
        while True:
            began = time.monotonic()
            reason = await self._watch(child)
            if time.monotonic() - began > _LONGEST_PAUSE_S:
                self._failures = 0
            _log.error("engine %d %s; starting another", child.pid, reason)
            self.state = "restarting"
            self._up.clear()
            self._child = None
            self.stats = {}
            self._listener.engine_down()
            await child.end()
            child = await self._renew()
            self.restarts += 1
            self._arrived(child)

    def _arrived(self, child: Child) -> None:
        self._child = child
        self._unanswered = 0
        self.state = "ready"
        self._up.set()
        _log.info("engine %d is ready", child.pid)

    async def _renew(self) -> Child:
        """Start another, at once; after failures in a row with growing pauses."""
        while True:
            await asyncio.sleep(self._pause_s())
            self._failures += 1  # until it has answered something
            try:
                child, _ = await self._begin()
                return child
            except (Phi4Error, OSError) as error:
                _log.error("the engine could not be started: %s", error)
                if self._failures >= _MANY_FAILURES:
                    self.state = "failed"

    def _pause_s(self) -> float:
        return min(_LONGEST_PAUSE_S, 0.25 * 2**self._failures) if self._failures else 0.0

    async def _begin(self) -> tuple[Child, EngineReady]:
        """Start a process and wait until it is ready.

        Raises:
            Phi4Error: Why it could not start.
            OSError: The system has no room for another process.
        """
        child = await Child.spawn(self._program)
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                child.send(StartEngine(self._settings))
                frame = await child.receive()
            if isinstance(frame, EngineReady):
                return child, frame
            if isinstance(frame, NotStarted):
                raise error_of(frame.failure)
            raise InternalFailure("the engine sent what no engine sends")
        except BaseException as error:
            await child.end()
            if isinstance(error, Gone):
                raise InternalFailure("the engine process ended while it started; its log says why") from None
            if isinstance(error, TimeoutError):
                raise NotReady(
                    f"the engine was not ready after {self._settings.start_timeout_s:g} s; give it more time"
                ) from None
            raise

    async def _watch(self, child: Child) -> str:
        """Watch a process until it can be used no more; returns why, as the end of a sentence."""
        watchers = [asyncio.create_task(self._read(child)), asyncio.create_task(self._question(child))]
        try:
            done, _ = await asyncio.wait(watchers, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        except Exception as error:
            return f"could not be read ({places_of(error)})"
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    async def _read(self, child: Child) -> str:
        while True:
            try:
                frame = await child.receive()
            except Gone:
                return "has ended"
            if isinstance(frame, Events):
                self._failures = 0
                self._listener.engine_events(frame.items, self)
            elif isinstance(frame, Failed):
                self._listener.engine_failed(frame.id, frame.failure, self)
            elif isinstance(frame, Looked):
                self.stats = frame.stats
            elif isinstance(frame, Pong):
                self._unanswered = 0
                self._answered(frame)
                if frame.turn_s > _LATE * frame.allowed_s:
                    return f"has been at one turn for {frame.turn_s:.1f} s"
            else:
                return "sent what no engine sends"

    def _answered(self, pong: Pong) -> None:
        waiting = self._asked.get(pong.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(pong)

    async def _question(self, child: Child) -> str:
        """Ask again and again; returns when too many questions have no answer."""
        looked = 0.0
        while True:
            await asyncio.sleep(self._settings.hang_s / _QUESTIONS)
            if self._unanswered >= _UNANSWERED:
                return f"has given no sign for {self._settings.hang_s:g} s"
            self._unanswered += 1
            child.send(Ping(self._next()))
            if time.monotonic() - looked >= 1.0 and self._unanswered == 1:
                looked = time.monotonic()
                child.send(Look(0))

    def _next(self) -> int:
        self._number += 1
        return self._number
