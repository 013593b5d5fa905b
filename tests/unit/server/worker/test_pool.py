"""Preparer processes, with programs that die, dawdle and lie."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from phi4.errors import InvalidArtifact, InvalidMedia, InvalidRequest
from phi4.server.failures import DeadlineExceeded, Draining, InternalFailure, PreparationFailed
from phi4.server.settings import ServerSettings
from phi4.server.worker.frames import StartPreparer
from phi4.server.worker.pool import PreparerPool
from phi4.server.worker.values import ModelCard, PrepareRequest

Program = Callable[[str], str]
CARD = ModelCard("stub", "scripted", "none", "float32", 512, 320)
PREPARES = """
channel = connect(descriptor, "stub")
inbox = Inbox(channel)
inbox.start()
inbox.get()
channel.send(PreparerReady())
while True:
    prompt = inbox.get().request.prompts[0]
    if prompt == "die":
        os._exit(1)
    if prompt == "lie":
        channel.send(Ping(1))
    if prompt == "sleep":
        time.sleep(30)
    if prompt == "nap":
        time.sleep(0.3)
    if prompt == "refuse":
        channel.send(Done(failure=Failure("InvalidMedia", "broken picture")))
    else:
        channel.send(Done(Prepared(token_ids=(os.getpid(),))))
"""


def asked(prompt: str) -> PrepareRequest:
    return PrepareRequest("tokenize", prompts=(prompt,))


def pooled(program: str, check: Callable[[PreparerPool], Any], **options: Any) -> None:
    async def run() -> None:
        settings = ServerSettings(**{"preparers": 1} | options)
        pool = PreparerPool(settings, program)
        try:
            await pool.start(StartPreparer(settings, CARD, "nowhere"))
            await check(pool)
        finally:
            await pool.close()

    asyncio.run(run())


async def pid_of(pool: PreparerPool) -> int:
    return (await pool.prepare(asked("x"), 30.0)).token_ids[0]


def test_jobs_are_shared_among_processes(program: Program) -> None:
    async def check(pool: PreparerPool) -> None:
        jobs = [pool.prepare(asked("nap"), 30.0) for _ in range(3)]
        found = await asyncio.gather(*jobs)
        assert len({result.token_ids[0] for result in found}) == 3
        assert pool.prepared_total == 3 and pool.preparing == 0

    pooled(program(PREPARES), check, preparers=3)


def test_a_refusal_comes_back_as_the_error_it_was(program: Program) -> None:
    async def check(pool: PreparerPool) -> None:
        pid = await pid_of(pool)
        with pytest.raises(InvalidMedia, match="broken picture"):
            await pool.prepare(asked("refuse"), 30.0)
        assert await pid_of(pool) == pid and pool.deaths_total == 0

    pooled(program(PREPARES), check)


def test_a_job_that_kills_its_process_fails_alone(program: Program) -> None:
    async def check(pool: PreparerPool) -> None:
        pid = await pid_of(pool)
        with pytest.raises(PreparationFailed, match="died of it"):
            await pool.prepare(asked("die"), 30.0)
        assert await pid_of(pool) != pid and pool.deaths_total == 1

    pooled(program(PREPARES), check)


def test_a_job_that_takes_too_long_is_killed(program: Program) -> None:
    async def check(pool: PreparerPool) -> None:
        pid = await pid_of(pool)
        with pytest.raises(PreparationFailed, match="took longer than"):
            await pool.prepare(asked("sleep"), 30.0)
        assert await pid_of(pool) != pid

    pooled(program(PREPARES), check, prepare_timeout_s=0.5)


def test_a_request_that_has_no_time_left_is_told_so(program: Program) -> None:
    async def check(pool: PreparerPool) -> None:
        with pytest.raises(DeadlineExceeded):
            await pool.prepare(asked("sleep"), 0.3)

    pooled(program(PREPARES), check)


def test_a_process_that_died_while_idle_costs_nobody_anything(program: Program) -> None:
    async def check(pool: PreparerPool) -> None:
        pid = await pid_of(pool)
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            while not all(child.gone for child in pool._children):
                await asyncio.sleep(0.01)
        assert await pid_of(pool) != pid

    pooled(program(PREPARES), check)


def test_a_process_that_sends_what_none_sends_is_replaced(program: Program) -> None:
    async def check(pool: PreparerPool) -> None:
        with pytest.raises(InternalFailure):
            await pool.prepare(asked("lie"), 30.0)
        assert pool.deaths_total == 1

    pooled(program(PREPARES), check)


def test_waiting_for_a_process_has_an_end(program: Program) -> None:
    async def check(pool: PreparerPool) -> None:
        busy = asyncio.create_task(pool.prepare(asked("sleep"), 30.0))
        await asyncio.sleep(0.05)
        with pytest.raises(DeadlineExceeded, match="waited too long"):
            await pool.prepare(asked("x"), 30.0)
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)

    pooled(program(PREPARES), check, queue_timeout_s=0.3)


def test_a_client_that_leaves_costs_no_process(program: Program) -> None:
    async def check(pool: PreparerPool) -> None:
        pid = await pid_of(pool)
        for _ in range(3):
            gone = asyncio.create_task(pool.prepare(asked("nap"), 30.0))
            await asyncio.sleep(0.05)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
        assert await pid_of(pool) == pid and pool.deaths_total == 0

    pooled(program(PREPARES), check)


def test_what_cannot_be_sent_reaches_no_process(program: Program) -> None:
    async def check(pool: PreparerPool) -> None:
        with pytest.raises(InvalidRequest):
            await pool.prepare(PrepareRequest("chat", ({"role": "user", "content": 2**70},)), 30.0)
        assert pool.deaths_total == 0

    pooled(program(PREPARES), check)


def test_closing_tells_everybody_who_waits(program: Program) -> None:
    async def check(pool: PreparerPool) -> None:
        waiting = [asyncio.create_task(pool.prepare(asked("sleep"), 30.0)) for _ in range(3)]
        await asyncio.sleep(0.05)
        await pool.close()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(error, Draining) for error in found)
        with pytest.raises(Draining):
            await pool.prepare(asked("x"), 30.0)

    pooled(program(PREPARES), check)


def test_a_file_of_no_voice_activity_is_an_error_of_the_start(served_model: Path) -> None:
    async def run() -> None:
        settings = ServerSettings(preparers=1, voice_activity=str(served_model / "config.json"))
        pool = PreparerPool(settings)
        with pytest.raises(
            InvalidArtifact, match=r"config\.json: .*a voice-activity model has the interface"
        ):
            await pool.start(StartPreparer(settings, replace(CARD, runner="onnx"), str(served_model)))
        await pool.close()

    asyncio.run(run())


def test_a_preparer_that_cannot_start_says_why(program: Program) -> None:
    body = (
        "channel = connect(descriptor, 'stub')\nchannel.receive()\n"
        "channel.send(NotStarted(Failure('InvalidRequest', 'wrong')))"
    )

    async def run() -> None:
        settings = ServerSettings(preparers=2)
        pool = PreparerPool(settings, program(body))
        with pytest.raises(InvalidRequest, match="wrong"):
            await pool.start(StartPreparer(settings, CARD, "nowhere"))
        await pool.close()

    asyncio.run(run())
