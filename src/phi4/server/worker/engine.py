"""The program of the engine process: frames in, steps of the engine, events out.

One loop: take what has come, run a step if there is work, send what became known. A second thread (`inbox`)
reads the socket and answers pings with how long the present turn of the loop has lasted, so that a loop that
hangs is told from one that works.
"""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from phi4.engine.structured.compiler import GrammarCompiler
from phi4.errors import MissingExtra, Phi4Error
from phi4.server.faults import places_of
from phi4.server.worker.answers import Answers
from phi4.server.worker.frames import (
    Cancel,
    Channel,
    EngineReady,
    Frame,
    Look,
    Looked,
    NotStarted,
    StartEngine,
    Submit,
    failure_of,
)
from phi4.server.worker.inbox import Inbox, connect
from phi4.server.worker.opening import OpenedEngine, open_engine, warm_up
from phi4.server.worker.pace import Pace

_log = logging.getLogger(__name__)
_BROKEN = 70


@dataclass(frozen=True)
class Compiled:
    """A grammar is ready; put into the inbox by the compiler's thread."""

    number: int
    grammar: Future[Any]


def main(descriptor: int) -> None:
    """Serve until the server goes."""
    channel = connect(descriptor, "engine")
    loop = EngineLoop(channel)
    try:
        loop.start()
    except Phi4Error as error:
        channel.send(NotStarted(failure_of(error)))
        return
    try:
        loop.run()
    except BaseException as error:
        # What the engine holds may be wrong from here on: another process starts from the weights.
        _log.critical("the engine is broken: %s", places_of(error))
        os._exit(_BROKEN)


class EngineLoop:
    """The loop and what it turns around.

    Args:
        channel: To the server.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._inbox = Inbox(channel, self._turn)
        self._pace = Pace(0.0)
        self._turn_began = 0.0
        self._answers: Answers | None = None

    def start(self) -> None:
        """Open the model and say that it is ready.

        Raises:
            Phi4Error: It cannot be opened.
        """
        self._inbox.start()
        start = self._inbox.get()
        assert isinstance(start, StartEngine), "an engine is told first what to serve"
        self._pace = Pace(start.settings.hang_s)
        opened = open_engine(start.settings)
        rate = warm_up(opened, self._pace)
        self._answers = Answers(opened, _compiler(opened), self._pace, self._later)
        self._channel.send(EngineReady(opened.card, str(opened.path), rate))

    def run(self) -> None:
        """Turn for ever; the inbox ends the process."""
        answers = self._answers
        assert answers is not None, "the loop was started"
        while True:
            frames: list[Frame] = []
            item = self._inbox.get_nowait() if answers.busy else self._wait()
            self._turn_began = self._turn_began or time.monotonic()
            while item is not None:
                frames += self._take(answers, item)
                item = self._inbox.get_nowait()
            if answers.busy:
                began = time.monotonic()
                frames += answers.step()
                self._pace.saw_turn(time.monotonic() - began)
            for frame in frames:
                self._channel.send(frame)
            self._turn_began = time.monotonic()

    def _wait(self) -> Any:
        """The next thing that comes; meanwhile no turn lasts."""
        self._turn_began = 0.0
        return self._inbox.get()

    def _take(self, answers: Answers, item: Any) -> list[Frame]:
        if isinstance(item, Submit):
            return answers.submit(item)
        if isinstance(item, Compiled):
            return answers.compiled(item.number, item.grammar)
        if isinstance(item, Cancel):
            answers.cancel(item.ids)
            return []
        assert isinstance(item, Look), "an engine is sent nothing else"
        return [Looked(item.number, answers.stats())]

    def _later(self, number: int, compiled: Future[Any]) -> None:
        self._inbox.put(Compiled(number, compiled))

    def _turn(self) -> tuple[float, float]:
        """How long the present turn has lasted, and how long it may; asked by the inbox's thread."""
        began = self._turn_began
        return (time.monotonic() - began if began else 0.0), self._pace.allowed_s


def _compiler(opened: OpenedEngine) -> GrammarCompiler:
    """A compiler that knows the vocabulary already, where there can be one."""
    compiler = GrammarCompiler(opened.tokenizer, opened.card.vocab_size)
    try:
        compiler.warm_up()
    except MissingExtra as error:
        _log.warning("%s", error)
    return compiler
