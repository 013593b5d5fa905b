"""One engine process kept alive, with programs that die, hang and lie."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from phi4.errors import ModelNotFound
from phi4.server.failures import InternalFailure, NotReady
from phi4.server.settings import ServerSettings
from phi4.server.worker.frames import Cancel, Failure
from phi4.server.worker.supervisor import Supervisor
from phi4.server.worker.values import ServerEvent

Program = Callable[[str], str]
READY = """
channel = connect(descriptor, "stub")
began = time.monotonic()
turn = [0.0]
inbox = Inbox(channel, lambda: ((time.monotonic() - turn[0]) if turn[0] else 0.0, 1.0))
inbox.start()
inbox.get()
channel.send(EngineReady(CARD, "nowhere", 100.0))
"""
HONEST = READY + "while True:\n    inbox.get()\n"
SEES = (
    READY
    + """
looks = 0.0
while True:
    frame = inbox.get()
    if isinstance(frame, Look):
        looks += 1
        channel.send(Looked(frame.number, {"looks": looks}))
"""
)
SPEAKS = READY + "channel.send(Events(((1, ServerEvent(0, 'hello')),)))\nwhile True:\n    inbox.get()\n"
HANGS = READY + "inbox.get()\nturn[0] = time.monotonic()\nwhile True:\n    pass\n"
LIES = READY + "channel.send(Cancel((1,)))\ntime.sleep(60)\n"
DIES_EARLY = "channel = connect(descriptor, 'stub')\nchannel.receive()\nos._exit(3)\n"
REFUSES = """
channel = connect(descriptor, "stub")
channel.receive()
channel.send(NotStarted(Failure("ModelNotFound", "no such model")))
"""
NEVER = "channel = connect(descriptor, 'stub')\nchannel.receive()\nchannel.receive()\n"


class Ear:
    """A listener that notes what it hears."""

    def __init__(self) -> None:
        self.events: list[tuple[int, ServerEvent]] = []
        self.failed: list[int] = []
        self.downs: list[float] = []

    def engine_events(self, items: Sequence[tuple[int, ServerEvent]], supervisor: Supervisor) -> None:
        self.events += items

    def engine_failed(self, number: int, failure: Failure, supervisor: Supervisor) -> None:
        self.failed.append(number)

    def engine_down(self) -> None:
        self.downs.append(time.monotonic())


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def watch(program: str, check: Callable[[Supervisor, Ear], Any], **options: Any) -> None:
    """Start a supervisor, run `check`, and close it."""

    async def run() -> None:
        ear = Ear()
        supervisor = Supervisor(ServerSettings(**{"hang_s": 1.0} | options), ear, program)
        try:
            await supervisor.start()
            await check(supervisor, ear)
        finally:
            await supervisor.close()
        assert supervisor.pid == 0 and supervisor.state == "stopped"

    asyncio.run(run())


def test_an_engine_that_lives_is_left_alone(program: Program) -> None:
    async def check(supervisor: Supervisor, ear: Ear) -> None:
        pid = supervisor.pid
        await until(
            lambda: supervisor.stats.get("looks", 0.0) >= 3
        )  # one a second, longer than a silence may be
        assert (supervisor.pid, supervisor.restarts, ear.downs) == (pid, 0, [])
        pong = await supervisor.ask(1.0)
        assert pong is not None and pong.turn_s == 0.0

    watch(program(SEES), check)


def test_what_the_engine_says_is_heard(program: Program) -> None:
    async def check(supervisor: Supervisor, ear: Ear) -> None:
        await until(lambda: bool(ear.events))
        assert ear.events[0][0] == 1 and ear.events[0][1].text == "hello"

    watch(program(SPEAKS), check)


def test_a_killed_engine_is_replaced_within_a_second_or_two(program: Program) -> None:
    async def check(supervisor: Supervisor, ear: Ear) -> None:
        pid, began = supervisor.pid, time.monotonic()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: bool(ear.downs))
        assert ear.downs[0] - began < 1.0
        await asyncio.wait_for(supervisor.until_ready(), 20)
        assert supervisor.pid not in (0, pid) and supervisor.restarts == 1

    watch(program(HONEST), check)


@pytest.mark.parametrize("how", ["stopped by a signal", "at one turn for ever"])
def test_a_hang_is_noticed_within_its_time(program: Program, how: str) -> None:
    async def check(supervisor: Supervisor, ear: Ear) -> None:
        pid, began = supervisor.pid, time.monotonic()
        if how == "stopped by a signal":
            os.kill(pid, signal.SIGSTOP)
        else:
            supervisor.send(Cancel(()))
        await until(lambda: bool(ear.downs))
        assert ear.downs[0] - began < 1.3  # hang_s is 1, and this machine is busy
        await until(lambda: supervisor.state == "ready" and supervisor.pid != pid)

    watch(program(HANGS), check)


def test_an_engine_that_sends_what_none_sends_is_replaced(program: Program) -> None:
    async def check(supervisor: Supervisor, ear: Ear) -> None:
        await until(lambda: supervisor.restarts >= 1)
        assert ear.downs

    watch(program(LIES), check)


def test_a_server_that_is_held_up_itself_judges_nobody(program: Program) -> None:
    async def check(supervisor: Supervisor, ear: Ear) -> None:
        for _ in range(3):
            time.sleep(1.5)  # longer than `hang_s`, and nothing of this process runs
            await asyncio.sleep(0.05)
        assert not ear.downs

    watch(program(HONEST), check)


@pytest.mark.parametrize(
    ("body", "error"), [(REFUSES, ModelNotFound), (DIES_EARLY, InternalFailure), (NEVER, NotReady)]
)
def test_a_first_start_that_fails_says_why(program: Program, body: str, error: type[Exception]) -> None:
    async def run() -> None:
        supervisor = Supervisor(ServerSettings(start_timeout_s=3.0), Ear(), program(body))
        with pytest.raises(error):
            await supervisor.start()
        await supervisor.close()

    asyncio.run(run())


def test_an_engine_that_dies_again_and_again_is_tried_with_growing_pauses(program: Program) -> None:
    async def check(supervisor: Supervisor, ear: Ear) -> None:
        for _ in range(3):
            pid = supervisor.pid
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid: supervisor.state == "ready" and supervisor.pid not in (0, pid))
        assert supervisor._pause_s() >= 1.0

    watch(program(HONEST), check)


def test_an_engine_that_has_answered_something_is_replaced_without_a_pause(program: Program) -> None:
    async def check(supervisor: Supervisor, ear: Ear) -> None:
        for round_ in range(1, 4):
            await until(lambda round_=round_: len(ear.events) >= round_)
            assert supervisor._pause_s() == 0.0
            os.kill(supervisor.pid, signal.SIGKILL)
            await until(lambda round_=round_: supervisor.restarts >= round_)

    watch(program(SPEAKS), check)


def test_nothing_can_be_sent_while_there_is_no_process(program: Program) -> None:
    async def run() -> None:
        supervisor = Supervisor(ServerSettings(), Ear(), program(HONEST))
        assert not supervisor.send(Cancel((1,)))
        assert await supervisor.ask(0.1) is None

    asyncio.run(run())
